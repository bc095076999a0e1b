"""A Gaussian classifier: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.adaptations.gaussian import inverse_covariance
from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from tests.small import TASK, TEMPLATES, adaptation, close

NODE = "method.adaptation."
WITHOUT = f"{NODE}search=false"


def labelled(labels, seed=1, views=1):
    image = torch.randn(views, len(labels), 64, generator=torch.Generator().manual_seed(seed))
    return LabelledFeatures(image, torch.tensor(labels))


def fitted(support, *overrides, names=None, **given):
    task = SimpleNamespace(class_names=names or ["cat", "dog"], templates=TEMPLATES, words={}, support=support)
    built = adaptation("gaussian_classifier", *overrides, task=task)
    built.fit_closed_form(SimpleNamespace(support=support, **given))
    return built


def test_every_view_is_a_sample_and_means_keep_their_length():
    built = fitted(TASK.support, WITHOUT, names=TASK.class_names)
    image, labels = functional.normalize(TASK.support.image.flatten(0, 1), dim=-1), TASK.support.labels.repeat(2)
    means = torch.stack([image[labels == label].mean(dim=0) for label in range(5)])
    covariance = (image - means[labels]).T.cov()
    expected = 64 * ((len(image) - 1) * covariance + covariance.trace() * torch.eye(64)).inverse()
    close(built.weight, means @ expected, 1e-4)
    close(built.bias, -torch.tensor(5.0).log() - torch.einsum("cd,de,ce->c", means, expected, means) / 2, 1e-4)


def test_fewer_samples_than_dimensions_or_of_unequal_classes():
    """Three samples in 64 dimensions: one class has a single one."""
    built = fitted(labelled([0, 0, 1]), WITHOUT)
    assert built.weight.isfinite().all() and built.bias.isfinite().all() and built.weight.any()
    assert (
        built.gaussian(functional.normalize(labelled([0, 0, 1]).image[0])).argmax(dim=-1) == torch.tensor([0, 0, 1])
    ).all()


def test_a_spherical_covariance_is_recovered_up_to_its_scale():
    centred = torch.randn(20000, 8, generator=torch.Generator().manual_seed(0))
    found = inverse_covariance(centred) * len(centred) / 8
    assert (found - torch.eye(8)).abs().max() < 0.05


def test_one_sample_of_each_class_or_equal_ones():
    one = labelled([0, 1])
    for support in (one, LabelledFeatures(one.image.repeat(3, 1, 1), one.labels)):
        with pytest.raises(UserError, match="one sample, or equal ones: take more shots, or several views"):
            fitted(support, WITHOUT)


def test_a_class_without_images():
    with pytest.raises(UserError, match="the support set has no image of dog: add some"):
        fitted(labelled([0, 0]), WITHOUT)


def test_of_equals_the_smallest_alpha_in_any_order():
    support, text = labelled([0, 0, 1, 1]), torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    given = {"text": text, "validation": LabelledFeatures(support.image, support.labels)}
    built = fitted(support, f"{NODE}alphas=[100,10,1000]", **given)
    assert built.accuracies(given["validation"], text).tolist() == [1, 1, 1] and built.alpha == 10


def test_with_nothing_right_alpha_is_the_given_one():
    support = labelled([0, 0, 1, 1])
    wrong = LabelledFeatures(support.image, 1 - support.labels)
    given = {"text": torch.zeros(2, 64), "validation": wrong}
    built = fitted(support, f"{NODE}alphas=[10,100]", f"{NODE}alpha=0.3", **given)
    assert not built.accuracies(wrong, given["text"]).any()
    assert built.alpha.item() == pytest.approx(0.3)
