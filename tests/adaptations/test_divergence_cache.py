"""A cache that compares probabilities: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.interfaces import LabelledFeatures
from tests.small import adaptation, close

NODE = "method.adaptation."
SMALL = [f"{NODE}betas=3", f"{NODE}alphas=4", f"{NODE}gammas=2"]
TEXT = functional.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(3)), dim=-1)
IMAGES = functional.normalize(torch.randn(20, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
GIVEN = SimpleNamespace(text=TEXT, validation=LabelledFeatures(IMAGES[None], torch.arange(20) % 5))


def built(*overrides):
    found = adaptation("divergence_cache", *SMALL, *overrides)
    found.fit_closed_form(GIVEN)
    return found


def test_divergences_are_of_the_image_from_the_key():
    found = built()
    p, q = ((x @ TEXT.T / 0.5).softmax(dim=-1) for x in (IMAGES, found.keys))
    expected = torch.stack([torch.stack([(a * (a / b).log()).sum() for b in q]) for a in p])
    close(found.divergence(IMAGES, TEXT), expected, 1e-4)


def test_divergences_have_the_range_of_the_cosines_on_validation():
    found = built()
    scaled, cosines = found.scaled(found.divergence(IMAGES, TEXT)), IMAGES @ found.keys.T
    close(torch.stack(scaled.aminmax()), torch.stack(cosines.aminmax()))


def test_the_range_of_a_batch_is_the_released_code_s():
    own, released = built(), built(f"{NODE}range_of_batch=true")
    assert torch.equal(own.accuracies(GIVEN.validation, TEXT), released.accuracies(GIVEN.validation, TEXT))
    for value in own, released:
        value.gamma.fill_(5)
    one = IMAGES[:1]
    close(own.logits(one, TEXT, 1.0), own.logits(IMAGES, TEXT, 1.0)[:1])
    assert (released.logits(one, TEXT, 1.0) - released.logits(IMAGES, TEXT, 1.0)[:1]).abs().max() > 0.1
    close(own.logits(IMAGES, TEXT, 1.0), released.logits(IMAGES, TEXT, 1.0))  # the validation split itself


def test_of_equals_the_smallest_alpha_then_beta_then_gamma():
    found = built()
    table = found.accuracies(GIVEN.validation, TEXT)
    assert table.shape == (4, 3, 2)
    i, j, k = (table == table.max()).nonzero()[0].tolist()
    expected = [found.alphas[i], found.betas[j], found.gammas[k]]
    assert [found.alpha.item(), found.beta.item(), found.gamma.item()] == pytest.approx(expected)


def test_without_search_the_ranges_are_the_keys_own():
    found = adaptation("divergence_cache", f"{NODE}search=false", f"{NODE}gamma=2")
    assert not found.capabilities.needs_validation
    found.fit_closed_form(SimpleNamespace(text=TEXT))
    close(found.affinity_range, torch.stack((found.keys @ found.keys.T).aminmax()))
    assert found.gamma == 2 and found.logits(IMAGES, TEXT, 1.0).isfinite().all()
