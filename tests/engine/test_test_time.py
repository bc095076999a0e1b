"""Runs that adapt at test time."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import Accelerator

from clipadapt.adaptations import Context, LinearProbe, ZeroShot
from clipadapt.adaptations.finetune import NormFinetuning
from clipadapt.engine.evaluation import evaluate_pair, evaluate_run
from clipadapt.engine.preparing import prepare_run
from clipadapt.errors import UserError
from clipadapt.features.encoder import Encoder
from clipadapt.features.loader import FeatureLoader
from clipadapt.objectives import CrossEntropy
from clipadapt.runs.plan import plan
from clipadapt.test_time import (
    Cache,
    Caches,
    GaussianMixture,
    MeanShift,
    NamedClassesTuning,
    NegativeCache,
    PromptTuning,
    Voting,
)
from tests.engine.tasks import fit, settings, split, task

WORDS = partial(Context, words="a photo of a")
TUNING = PromptTuning(views=4, images=2, selection=0.5)
STREAM = Caches(Cache(), NegativeCache())
BATCHES = NamedClassesTuning(batch_size=4, steps=1)
NORMS = partial(NormFinetuning, towers="image", outside_blocks=True)


def prepare(clip, test_time, make=ZeroShot, given=None, **changes):
    changes = {"epochs": 0, **changes}
    return prepare_run(clip, given or task(), make, settings(**changes), test_time=test_time)


def measured(run):
    (test,) = run.task.tests.values()
    return evaluate_pair(run, run.zero_shot(), run.head, test)


def seen_views(run):
    (test,) = run.task.tests.values()
    method = run.test_time
    return run.loader.test_views(run.head, test, method.views, method.images)


@pytest.mark.parametrize("cache", [None, "here"])
def test_views_of_test_images(clip, tmp_path, cache):
    run = prepare(clip, TUNING, WORDS, cache=cache and str(tmp_path))
    batches = [*seen_views(run)]
    assert [x.shape for x, _ in batches] == [(2, 4, clip.width), (2, 4, clip.width), (1, 4, clip.width)]
    x, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    (test,) = run.task.tests.values()
    assert labels.tolist() == test.labels
    plain = torch.cat([values for values, _ in run.loader.test_batches(run.head, test)])
    assert torch.equal(x[:, 0], plain)
    random = run.loader.values(run.head, test, 4, "crop_mirror").transpose(0, 1)
    assert torch.allclose(x[:, 1:], random[:, 1:], atol=1e-5)
    assert all(not torch.allclose(x[:, i], x[:, j]) for i in range(4) for j in range(i))


def test_nothing_is_learned_and_nothing_encoded_before_the_test(clip, monkeypatch):
    encoded = []
    compute = Encoder.compute
    monkeypatch.setattr(Encoder, "compute", lambda *given: (encoded.append(given[2]), compute(*given))[1])
    run = prepare(clip, TUNING, WORDS)
    assert run.epochs == 0 and run.support() is None and plan(run).every_step.startswith("nothing; at the test 4 views")
    state, progress = fit(run)
    run.fit_closed_form()
    assert progress.history == [] and encoded == []
    before, after = measured(run)
    assert before.images == after.images == 5 and encoded
    assert all(torch.equal(value, state[name]) for name, value in run.head.adaptation.state_dict().items())


@pytest.mark.parametrize("method", [TUNING, MeanShift(views=6, images=2), Voting(views=6, images=2), STREAM])
def test_images_looked_at_together_do_not_matter(clip, method, monkeypatch):
    run = prepare(clip, method, WORDS if method is TUNING else ZeroShot)
    together = measured(run)[1]
    monkeypatch.setattr(method, "images", 5)
    found = measured(run)[1]
    assert found.details["confusion"].equal(together.details["confusion"]) and found.images == 5
    assert found.figures["calibration_error"] == pytest.approx(together.figures["calibration_error"], abs=1e-4)


def test_it_goes_on_from_what_was_fitted(clip):
    run = prepare(clip, TUNING, WORDS, epochs=2)
    start = run.head.adaptation.context.detach().clone()
    fit(run, CrossEntropy(run.clip, run.known))
    fitted = run.head.adaptation.context.detach().clone()
    assert not torch.equal(start, fitted)
    measured(run)
    assert torch.equal(run.head.adaptation.context, fitted)


@pytest.mark.parametrize("method, make", [(STREAM, ZeroShot), (BATCHES, NORMS)], ids=["stream", "batches"])
def test_test_images_come_in_an_order_drawn_by_seed(clip, monkeypatch, method, make):
    orders, test_views = [], FeatureLoader.test_views
    monkeypatch.setattr(
        FeatureLoader, "test_views", lambda *given: (orders.append(given[2].labels), test_views(*given))[1]
    )
    by_class = [i // 4 for i in range(12)]
    run = prepare(clip, method, make, given=task(tests={"test": split(by_class)}))
    first, again = measured(run)[1], measured(run)[1]
    assert (first.figures, first.predicted) == (again.figures, again.predicted)
    assert orders[0] == orders[1] != by_class == sorted(orders[0])


def test_a_stream_is_not_shared_out(clip, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(UserError, match="one after another, and can't share them out over 2 processes: run it in one"):
        prepare(clip, STREAM)


def test_memory_is_for_all_images_at_once(clip):
    given = replace(task(tests={"test": split([0])}), class_names=[f"thing {i}" for i in range(60)])
    tunings = PromptTuning(images=1), PromptTuning(images=8)
    one, eight = (prepare(clip, tuning, WORDS, given, memory=0.1).head.max_rows for tuning in tunings)
    assert eight == one // 8


def test_all_test_images_are_seen_together(clip):
    run = prepare(clip, GaussianMixture())
    (test,) = run.task.tests.values()
    with torch.no_grad():
        text = run.head.precompute()
        features = torch.cat([run.test_time.encode(run.head, x) for x, _ in seen_views(run)])
        expected = run.test_time.set_logits(run.head, features, text)
    found = measured(run)[1]
    assert found.predicted == expected.argmax(dim=-1).tolist() and found.images == len(test)
    assert torch.allclose(found.answers[0][0], expected.softmax(dim=-1), atol=1e-6)
    assert plan(run).every_step.endswith("at the test all images together")
    assert "seen together" in evaluate_run(run)["test_note"]
    assert "test_note" not in evaluate_run(prepare(clip, None))


def test_a_test_set_of_one_image_is_refused_before_anything_is_encoded(clip, monkeypatch):
    monkeypatch.setattr(Encoder, "compute", None)
    with pytest.raises(UserError, match="needs at least 2 images of a test set together, and 'test' has 1: add some"):
        prepare(clip, GaussianMixture(), given=task(tests={"test": split([0])}))
    with pytest.raises(UserError, match="this adaptation has logits of its own"):
        prepare(clip, GaussianMixture(), LinearProbe)


def test_a_validation_split_of_one_image_is_left_out(clip):
    given = replace(task(), validation=split([0]), validation_indices=[7])
    assert "validation" not in evaluate_run(prepare(clip, GaussianMixture(), given=given), validation=True)


def test_batches_are_adapted_to_as_the_run_says(clip):
    run = prepare(clip, BATCHES, NORMS)
    assert plan(run).every_step.endswith("at the test batches of 4 images, adapted to together")
    assert "each batch of 4 test images was adapted to together" in evaluate_run(run)["test_note"]
    with pytest.raises(UserError, match="tunes weights of the image tower alone to a batch"):
        prepare(clip, BATCHES)


def test_all_test_images_in_several_processes(clip, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(UserError, match="sees all test images together, and can't share them out over 2 processes"):
        prepare(clip, GaussianMixture())
