"""Attention without parameters: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.interfaces import LabelledFeatures
from tests.small import adaptation, close

NODE = "method.adaptation."
SMALL = [f"{NODE}text_weights=3", f"{NODE}image_weights=4"]
TEXT = functional.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(3)), dim=-1)
TOKENS = torch.randn(70, 17, 64, generator=torch.Generator().manual_seed(1))
GIVEN = SimpleNamespace(text=TEXT, validation=LabelledFeatures(TOKENS[None], torch.arange(70) % 5))


def test_one_image_patch_by_patch():
    found = adaptation("parameter_free_attention", f"{NODE}text_weight=0.5", f"{NODE}image_weight=0.25")
    unit = functional.normalize(TOKENS[0], dim=-1)
    pooled, patches = unit[0], unit[1:]
    texts = [((2 * patches @ text).softmax(dim=0)[:, None] * patches).sum(dim=0) for text in TEXT]
    mixtures = torch.stack([(2 * TEXT @ patch).softmax(dim=0) @ TEXT for patch in patches])
    image = mixtures.mean(dim=0) + mixtures.max(dim=0).values
    expected = 100 * (TEXT @ pooled + 0.5 * torch.stack(texts) @ pooled + 0.25 * TEXT @ image)
    close(found.logits(TOKENS[:1], TEXT, 7.0)[0], expected)


def test_the_weight_of_the_zero_shot_logits():
    settings = [*SMALL, f"{NODE}text_weight=0.5", f"{NODE}image_weight=0.25"]
    one, two = (adaptation("parameter_free_attention", *settings, f"{NODE}zero_shot_weight={x}") for x in (1, 2))
    zero_shot, _, _ = one.branches(TOKENS, TEXT)
    close(two.logits(TOKENS, TEXT, 7.0), one.logits(TOKENS, TEXT, 7.0) + zero_shot)
    assert not torch.equal(*(each.accuracies(GIVEN.validation, TEXT) for each in (one, two)))


def test_names_keep_their_underscores():
    assert adaptation("parameter_free_attention").prompts(["tree_frog"])[0][0] == "a photo of a tree_frog."


def test_of_equals_the_smallest_weight_of_the_text_then_of_the_image():
    found = adaptation("parameter_free_attention", *SMALL)
    table = found.accuracies(GIVEN.validation, TEXT)
    assert table.shape == (3, 4)
    found.fit_closed_form(GIVEN)
    i, j = (table == table.max()).nonzero()[0].tolist()
    assert [found.text_weight.item(), found.image_weight.item()] == pytest.approx(
        [found.grids[0][i], found.grids[1][j]]
    )


def test_the_search_begins_at_zero_shot_clip():
    found = adaptation("parameter_free_attention", *SMALL)
    pooled = functional.normalize(TOKENS[:, 0], dim=-1)
    own = GIVEN.validation.labels
    assert found.accuracies(GIVEN.validation, TEXT)[0, 0] == ((pooled @ TEXT.T).argmax(dim=-1) == own).float().mean()


def test_without_search_it_needs_no_images():
    found = adaptation("parameter_free_attention", f"{NODE}search=false")
    assert not found.capabilities.needs_validation and found.capabilities.num_fitted_values == 0
    found.fit_closed_form(SimpleNamespace())
    assert found.text_weight.item() == pytest.approx(1.12) and found.image_weight.item() == pytest.approx(0.02)
