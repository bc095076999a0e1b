"""A cache of features: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.interfaces import LabelledFeatures
from tests.small import TASK, adaptation, close, task_on

NODE = "method.adaptation."
SMALL = [f"{NODE}betas=4", f"{NODE}alphas=3"]


def learned(labels, text=None):
    image = torch.randn(1, len(labels), 64, generator=torch.Generator().manual_seed(1))
    text = torch.randn(5, 64, generator=torch.Generator().manual_seed(3)) if text is None else text
    return SimpleNamespace(validation=LabelledFeatures(image, torch.tensor(labels)), text=text)


def test_votes_are_sums_over_keys_of_a_class():
    built = adaptation("feature_cache", f"{NODE}beta=2.5", f"{NODE}alpha=0.5")
    image, text = torch.randn(3, 64), torch.randn(5, 64)
    unit = functional.normalize(image, dim=-1)
    keys = functional.normalize(TASK.support.image.mean(dim=0), dim=-1)
    values = functional.one_hot(TASK.support.labels, 5).float()
    votes = torch.exp(-(2.5 - 2.5 * unit @ keys.T)) @ values
    close(built.logits(image, text, 7.0), 100 * unit @ functional.normalize(text, dim=-1).T + 0.5 * votes)


def test_of_equals_the_smallest_beta_then_the_smallest_alpha():
    built = adaptation("feature_cache", *SMALL)
    given = learned([0, 1, 2, 3, 4] * 4)
    table = built.accuracies(given.validation, given.text)
    assert table.shape == (4, 3)
    built.fit_closed_form(given)
    row, column = next((i, j) for i in range(4) for j in range(3) if table[i, j] == table.max())
    assert built.beta.item() == pytest.approx(built.betas[row])
    assert built.alpha.item() == pytest.approx(built.alphas[column])


def test_with_nothing_right_both_are_zero():
    built = adaptation("feature_cache", *SMALL, f"{NODE}scale=10000")
    given = learned([0] * 6)
    given.text = torch.stack([-given.validation.image[0].mean(dim=0)] + 4 * [given.validation.image[0].mean(dim=0)])
    assert not built.accuracies(given.validation, given.text).any()
    built.fit_closed_form(given)
    assert built.alpha == 0 and built.beta == 0


def test_without_search_it_keeps_what_it_was_given():
    built = adaptation("feature_cache", f"{NODE}search=false", f"{NODE}alpha=2", f"{NODE}beta=3")
    assert not built.capabilities.needs_validation
    built.fit_closed_form(SimpleNamespace())
    assert (built.alpha, built.beta) == (2, 3)


@pytest.mark.parametrize("learn_keys", [True, False])
def test_it_is_built_from_nothing_and_loaded(learn_keys):
    built = adaptation("feature_cache", f"{NODE}learn_keys={learn_keys}", *SMALL)
    assert [name for name, _ in built.named_parameters()] == ["keys"] * learn_keys
    built.fit_closed_form(learned([0, 1, 2, 3, 4]))
    nothing = LabelledFeatures(torch.zeros(2, 10, 64), torch.zeros(10, dtype=torch.long))
    task = SimpleNamespace(**{**vars(task_on()), "support": nothing})
    again = adaptation("feature_cache", f"{NODE}learn_keys={learn_keys}", *SMALL, task=task)
    again.load_state_dict(built.state_dict(), strict=True)
    image, text = torch.randn(3, 64), torch.randn(5, 64)
    assert torch.equal(again.logits(image, text, 1.0), built.logits(image, text, 1.0))
