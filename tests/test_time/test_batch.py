"""Tuning to batches of test images: what the golden records don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.config.directory import identity
from clipadapt.engine.accelerator import accelerator_for
from clipadapt.errors import UserError
from clipadapt.runs.method_facts import BATCH, when_it_adapts
from clipadapt.serving.server import check_predictor
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import NamedClassesTuning, WeightAverageTuning
from clipadapt.test_time.batch import Tuning, targets
from tests.engine.tasks import settings
from tests.small import CLASS_NAMES, adaptation, close, composed, golden, images

NORMS = ["norm_finetuning", "method.adaptation.towers=image", "method.adaptation.outside_blocks=true"]
TEMPLATES = ["a photo of a {}", "art of the {}."]
METHODS = [
    NamedClassesTuning(batch_size=4, steps=2),
    WeightAverageTuning(TEMPLATES, batch_size=4, steps=1, rounds=2),
    WeightAverageTuning(TEMPLATES, batch_size=4, steps=1, rounds=2, parallel=True, answer_template=TEMPLATES[1]),
]


@pytest.fixture(scope="module")
def classifier():
    return Classifier(golden(), adaptation(*NORMS), CLASS_NAMES)


def start(method, classifier, x):
    return method.answers(Tuning(classifier, x.flatten(0, 1), {}))


@pytest.mark.parametrize("method", METHODS)
def test_the_images_of_a_batch_change_each_others_answers_and_leave_no_trace(method, classifier):
    x = classifier.prefix(images(4)[:, None])
    before = {name: value.clone() for name, value in classifier.adaptation.named_parameters()}
    together, again = method.logits(classifier, x), method.logits(classifier, x)
    assert torch.equal(together, again)
    assert not torch.allclose(method.logits(classifier, x[:2]), together[:2], atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in classifier.adaptation.named_parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_one_image_gets_the_answer_before_tuning(method, classifier):
    x = classifier.prefix(images(1)[:, None])
    assert torch.equal(method.logits(classifier, x), start(method, classifier, x))


def test_targets_sum_to_one_over_the_images():
    vectors = 1 + 0.1 * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    features, texts = functional.normalize(vectors, dim=-1)
    found = targets(features, texts)
    close(found.sum(dim=0), torch.ones(3))
    assert not torch.allclose(found.sum(dim=1), torch.ones(3), atol=1e-3)
    close(targets(features, texts, "text"), (texts @ texts.T / 0.02).softmax(dim=0))


@pytest.mark.parametrize("parallel", [False, True])
def test_one_round_averages_the_weights_after_each_template(classifier, parallel):
    x = classifier.prefix(images(4)[:, None])
    both = WeightAverageTuning(TEMPLATES, steps=1, rounds=1, parallel=parallel).tune(classifier, x)
    first, second = (WeightAverageTuning([text], steps=1, rounds=1).tune(classifier, x) for text in TEMPLATES)
    found = [
        all(torch.allclose((first.tensors[name] + second.tensors[name]) / 2, value) for name, value in table.items())
        for table in (both.tensors, both.averages[-1])
    ]
    assert found == [parallel, parallel]


def test_fewer_classes_than_a_text_names_are_all_named(classifier):
    method = NamedClassesTuning(steps=1, named=9)
    tuned = method.tune(classifier, classifier.prefix(images(2)[:, None]))
    assert tuned.values["classes"].shape == (1, 2, len(CLASS_NAMES))


def test_a_class_with_several_names_has_their_mean(classifier):
    method, heads = NamedClassesTuning(), (["kitten"], ["cat"], {"cat": ["cat", "kitten"]})
    kitten, cat, both = (method.class_features(classifier.for_classes(names))[0] for names in heads)
    close(both, functional.normalize(cat + kitten, dim=-1))


@pytest.mark.parametrize("parts", [["zero_shot"], ["context"], ["norm_finetuning"], ["linear_probe"]])
def test_what_has_no_weights_of_the_image_tower_alone_is_refused(parts):
    with pytest.raises(UserError, match=r"norm_finetuning with method.adaptation.towers=image|logits of its own"):
        NamedClassesTuning().check(adaptation(*parts))


def test_runs_with_batches_of_another_size_are_other_runs():
    found, other = (identity(composed("method=clipartt", *own)) for own in ([], ["method.test_time.batch_size=4"]))
    assert found["method.test_time.batch_size"] == 128 and found != other


def test_a_batch_is_not_shared_out_over_processes(monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(UserError, match="batches of 128 test images, each as a whole, and can't share them out over 2"):
        accelerator_for(settings(), NamedClassesTuning())


def test_it_is_said_that_a_batch_is_adapted_to_and_a_server_is_refused():
    method = NamedClassesTuning(batch_size=7)
    assert when_it_adapts(method) == BATCH and "each batch of 7 test images" in method.note
    predictor = SimpleNamespace(kind=SimpleNamespace(probabilities=True), test_time=method)
    with pytest.raises(UserError, match="adapts to batches of images, so that one client's images would change"):
        check_predictor(predictor)
