"""A cache on chosen channels, and sentences of classes: what golden records and contracts don't show."""

from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from tests.small import CLASS_NAMES, TEMPLATES, adaptation, close, task_on

NODE = "method.adaptation."
SMALL = [f"{NODE}betas=3", f"{NODE}alphas=4", f"{NODE}gammas=2"]
TEXT = functional.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(3)), dim=-1)


def unequal():
    """Support images of five classes, of which one has three and another none."""
    image = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(2))
    return LabelledFeatures(image, torch.tensor([4, 0, 1, 0, 2, 0, 1]))


def built(*overrides, support=None):
    task = SimpleNamespace(class_names=CLASS_NAMES, templates=TEMPLATES, words={}, support=support or task_on().support)
    return adaptation("refined_cache", *overrides, task=task)


def test_similarity_is_a_mean_over_pairs_of_members_of_unequal_classes_in_any_order():
    found = built(support=unequal())
    members = [torch.cat([TEXT[[label]], found.keys[found.labels == label]]) for label in range(5)]
    pairs = [(a[:, None] * b).mean(dim=(0, 1)) for a, b in permutations(members, 2)]
    close(found.similarity(TEXT), torch.stack(pairs).mean(dim=0), 1e-4)


def test_votes_use_the_channels_with_the_best_scores_and_zero_shot_logits_all():
    found = built(f"{NODE}channels=20", f"{NODE}alpha=2", f"{NODE}gamma=0.5", f"{NODE}search=false")
    found.fit_closed_form(SimpleNamespace(text=TEXT))
    kept = found.scores(TEXT).argsort(descending=True)[:20]
    image = torch.randn(3, 64)
    cut = [functional.normalize(x[:, kept], dim=-1) for x in (image, found.keys, TEXT)]
    own = (cut[1] @ cut[2].T).softmax(dim=-1)[torch.arange(10), found.labels]
    weights = ((1 + 1e-6) / (own + 1e-6)).log2().mul(0.5).exp()
    votes = (cut[0] @ cut[1].T - 1).exp() * weights @ functional.one_hot(found.labels, 5).float()
    close(found.logits(image, TEXT, 7.0), 100 * functional.normalize(image, dim=-1) @ TEXT.T + 2 * votes)


def test_of_equals_the_smallest_beta_then_alpha_then_gamma():
    found = built(*SMALL)
    image = torch.randn(1, 20, 64, generator=torch.Generator().manual_seed(1))
    given = SimpleNamespace(text=TEXT, validation=LabelledFeatures(image, torch.arange(20) % 5))
    found.fit_closed_form(given)
    table = found.accuracies(given.validation, TEXT)
    assert table.shape == (3, 4, 2)
    i, j, k = (table == table.max()).nonzero()[0].tolist()
    expected = [found.betas[i], found.alphas[j], found.gammas[k]]
    assert [found.beta.item(), found.alpha.item(), found.gamma.item()] == pytest.approx(expected)


def test_channels():
    assert built().channels == 31
    with pytest.raises(UserError, match="channels=65 are more than the 64 channels of the features"):
        built(f"{NODE}channels=65")


def test_one_class():
    support = LabelledFeatures(torch.randn(1, 3, 64), torch.zeros(3, dtype=torch.long))
    task = SimpleNamespace(class_names=["cat"], templates=TEMPLATES, words={}, support=support)
    found = adaptation("refined_cache", f"{NODE}search=false", task=task)
    found.fit_closed_form(SimpleNamespace(text=TEXT[:1]))
    assert found.logits(torch.randn(2, 64), TEXT[:1], 1.0).isfinite().all() and found.mask.sum() == 31
