"""A cache with residuals of the classes: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from tests.small import CLASS_NAMES, TEMPLATES, adaptation, close, images

TEXT = functional.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(3)), dim=-1)


def test_of_classes_of_unequal_size_each_key_gets_its_own_class_s_residual():
    support = LabelledFeatures(images(7, 8).flatten(1)[None, :, :64], torch.tensor([4, 0, 1, 0, 2, 0, 1]))
    task = SimpleNamespace(class_names=CLASS_NAMES, templates=TEMPLATES, words={}, support=support)
    found = adaptation("residual_cache", "method.adaptation.channels=9", task=task)
    found.begin_phase(0, SimpleNamespace(text=TEXT))
    with torch.no_grad():
        found.residual.copy_(torch.randn(5, 9))
        found.key_weights.copy_(torch.randn(7, 1))
    shift = torch.zeros(5, 64)
    shift[:, found.chosen] = found.residual.detach()
    image = functional.normalize(torch.randn(3, 64), dim=-1)
    votes = torch.zeros(3, 5)
    for i, label in enumerate(support.labels.tolist()):
        products = image @ (found.keys[i] + shift[label])
        votes[:, label] += found.key_weights[i].item() * (products - 1).exp()
    close(found.logits(image, TEXT, 1.0).detach(), 100 * image @ (TEXT + shift).T + 3 * votes)


def test_before_its_fit_it_is_tip_adapter():
    found, plain = adaptation("residual_cache"), adaptation("feature_cache", "method.adaptation.alpha=3")
    image = torch.randn(3, 64)
    close(found.logits(image, TEXT, 1.0).detach(), plain.logits(image, TEXT, 1.0))


def test_more_channels_than_there_are():
    with pytest.raises(UserError, match="channels=65 are more than the 64 channels of the features"):
        adaptation("residual_cache", "method.adaptation.channels=65")
