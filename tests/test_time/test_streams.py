"""Methods that adapt along a stream of test images, one after another."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.engine import Settings
from clipadapt.engine.accelerator import accelerator_for
from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import (
    BoostedCaches,
    Cache,
    Caches,
    DualMemory,
    DualPrototypes,
    NegativeCache,
    OnlineProxies,
    RecentNegativeCache,
)
from clipadapt.test_time.memories import Memory
from clipadapt.test_time.prototypes import ADAM_EPS
from clipadapt.test_time.views import ViewSummary, entropy
from tests.small import CLASS_NAMES, TEMPLATES, adaptation, close, golden, images, task_on

METHODS = {
    "TDA": lambda: Caches(Cache(), NegativeCache(), selection=0.3),
    "BoostAdapter": lambda: BoostedCaches(Cache(), RecentNegativeCache(), selection=0.5),
    "OnZeta": lambda: OnlineProxies(proxy_step=0.05),
    "DMN": lambda: DualMemory(selection=0.3, capacity=2),
    "DPE": lambda: DualPrototypes(Cache(alpha=6), selection=0.5, threshold=0.5, text_lr=0.05),
}
EACH = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
SHARED = pytest.mark.parametrize("make", [METHODS[name] for name in ("OnZeta", "DMN", "DPE")])


def classifier_of(name="zero_shot", classes=CLASS_NAMES, task=None):
    built = adaptation(name, task=task)
    built.fit_closed_form(task or task_on())
    return Classifier(golden(), built, classes)


def started(make, length=8):
    method = make()
    method.reset(length)
    return method


def views(classifier, count=8, of_each=4):
    return classifier.prefix(images(count * of_each).unflatten(0, (count, of_each)))


def summary(feature, logits):
    return ViewSummary(feature, logits, logits.softmax(dim=-1), entropy(logits))


@EACH
@torch.no_grad()
def test_a_stream_goes_on_from_its_state_whatever_is_encoded_together(make):
    classifier = classifier_of()
    x, text = views(classifier), classifier.class_embeddings()
    whole, first, second = (started(make) for _ in range(3))
    expected = whole.logits(classifier, x, text)
    halves = [first.logits(classifier, x[:5], text)]
    second.load_state_dict(first.state_dict())
    first.logits(classifier, x[5:], text)  # leaves the copy alone
    halves += [second.logits(classifier, one[None], text) for one in x[5:]]
    close(torch.cat(halves).softmax(dim=-1), expected.softmax(dim=-1), 1e-4)
    left, again = whole.state_dict(), second.state_dict()
    assert left.keys() == again.keys() and int(left["count"]) == 8 and int(left["length"]) == 8
    assert all((left[name].shape, left[name].dtype) == (again[name].shape, again[name].dtype) for name in left)
    whole.reset(8)
    close(whole.logits(classifier, x, text), expected)


@EACH
@torch.no_grad()
def test_a_stream_of_one_image(make):
    classifier = classifier_of()
    found = started(make, 1).logits(classifier, views(classifier, 1, 1), classifier.class_embeddings())
    assert found.shape == (1, 5) and found.isfinite().all()


@EACH
def test_a_stream_is_not_shared_out(make, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    settings = Settings(epochs=0, optimizer=None, schedule=None, cpu=True)
    with pytest.raises(UserError, match="one after another, and can't share them out over 2 processes: run it in one"):
        accelerator_for(settings, make())


@SHARED
def test_class_embeddings_that_depend_on_the_image_are_refused(make):
    classifier = classifier_of("conditional_context")
    with pytest.raises(UserError, match=r"other class embeddings for each image.*take another adaptation"):
        started(make).logits(classifier, views(classifier, 2), None)


@EACH
@torch.no_grad()
def test_some_of_the_classes_of_what_was_learned(make):
    """Class weights of five classes, of which two are asked for in another order."""
    classifier, some = (classifier_of("task_residual", classes) for classes in (CLASS_NAMES, ["tree_frog", "cat"]))
    method = started(make)
    found = method.logits(some, views(classifier), classifier.class_embeddings())
    assert found.shape == (8, 2) and found.isfinite().all()


def test_a_stream_of_unknown_length_or_longer_than_was_said():
    classifier, method = classifier_of(), METHODS["OnZeta"]()
    x, text = views(classifier, 3, 1), classifier.class_embeddings()
    with pytest.raises(UserError, match=r"nobody said how many images come: call predictor.reset\(length=N\) first"):
        method.logits(classifier, x, text)
    method.reset(2)
    with pytest.raises(UserError, match="was to have length=2, and image 3 came"):
        method.logits(classifier, x, text)
    method.logits(classifier, x[:2], text)
    with pytest.raises(UserError, match="was to have length=2, and image 3 came"):
        method.logits(classifier, x[:1], text)


@torch.no_grad()
def test_the_first_image_of_onzeta_is_clips_but_for_the_vision_temperature():
    classifier, method = classifier_of(), METHODS["OnZeta"]()
    method.reset(4)
    (found,) = method.follow(classifier, views(classifier, 1, 1), classifier.class_embeddings())
    logits = classifier(images(1))[0] / golden().scale
    close(found["text"], (logits / 0.01).softmax(dim=-1), 1e-4)
    close(found["vision"], (logits / 0.04).softmax(dim=-1), 1e-4)
    close(found["logits"].softmax(dim=-1), 0.4 * found["vision"] + 0.6 * found["text"], 1e-4)


def test_the_step_of_dpe_is_adamws_first():
    start, gradient = torch.zeros(4, 3, requires_grad=True), torch.randn(4, 3) * torch.tensor([1e-4, 1e-3, 1.0])
    optimizer = torch.optim.AdamW([start], lr=6e-4, eps=ADAM_EPS, weight_decay=0.1)
    start.grad = gradient
    optimizer.step()
    close(-6e-4 * gradient / (gradient.abs() + ADAM_EPS), start.detach(), 1e-5)


@torch.no_grad()
def test_the_prototypes_of_dpe_are_means_of_unit_vectors_that_stay_short():
    classifier = classifier_of()
    x, text = views(classifier, 5), classifier.class_embeddings()
    method = DualPrototypes(Cache(), selection=0.5, threshold=1, text_lr=1.0)
    found = [values["moved_text"] for values in method.follow(classifier, x, text)]
    expected = torch.stack([functional.normalize(text, dim=-1), *found]).mean(dim=0)
    close(method.tensors["text"], expected)
    assert expected.norm(dim=-1).min() < 0.99


@torch.no_grad()
@pytest.mark.parametrize("which", ["text", "image"])
def test_without_a_learning_rate_the_prototypes_of_dpe_stay(which):
    classifier = classifier_of()
    x, text = views(classifier, 3), classifier.class_embeddings()
    method = DualPrototypes(Cache(), threshold=1, **{f"{which}_lr": 0.0})
    found = method.follow(classifier, x, text)[-1]
    still, moved = ("text", "keys") if which == "text" else ("keys", "text")
    assert not found[f"{still}_residue"].any() and found[f"{moved}_residue"].any()


@torch.no_grad()
def test_only_confident_images_move_the_prototypes_of_later_ones():
    classifier = classifier_of()
    x, text = views(classifier, 3), classifier.class_embeddings()
    never, always = (DualPrototypes(Cache(), threshold=threshold) for threshold in (0, 1))
    for method in (never, always):
        method.logits(classifier, x, text)
    close(never.state_dict()["text"], text)
    assert int(never.state_dict()["updates"]) == 0 and int(always.state_dict()["updates"]) == 3
    assert not torch.equal(always.state_dict()["text"], never.state_dict()["text"])


def test_the_oldest_image_makes_room():
    cache, feature = (
        RecentNegativeCache(capacity=2, entropy_lower=0, entropy_upper=1),
        functional.normalize(torch.ones(3), dim=0),
    )
    for position, sureness in enumerate([1.0, 3.0, 2.0, 0.5]):
        cache.put(summary(feature, torch.tensor([sureness, 0.0])), position)
    assert cache.entries["position"].tolist() == [[2, 3], [-1, -1]]


def test_the_least_confident_image_makes_room_in_its_place():
    memory, feature = Memory(capacity=2), functional.normalize(torch.ones(3), dim=0)
    for position, sureness in enumerate([1.0, 3.0, 0.5, 2.0]):
        memory.put(summary(feature, torch.tensor([sureness, 0.0])), position)
    assert memory.entries["position"].tolist() == [[3, 1], [-1, -1]]


@torch.no_grad()
def test_an_images_own_views_are_gone_with_it():
    classifier = classifier_of()
    x, text = views(classifier), classifier.class_embeddings()
    boosted, plain = (BoostedCaches(Cache(), RecentNegativeCache(), selection=0.5, delta=delta) for delta in (5, 0))
    found, expected = (method.follow(classifier, x, text) for method in (boosted, plain))
    states = boosted.state_dict(), plain.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert max(int(one["counts"].max()) for one in expected) == 3 < max(int(one["counts"].max()) for one in found)
    nothing = BoostedCaches(Cache(0), RecentNegativeCache(0), selection=0.5)
    close(nothing.logits(classifier, x, text), torch.stack([one["clip"] for one in found]))


def test_settings_that_leave_nothing_are_refused_before_any_image():
    with pytest.raises(UserError, match=r"cache\.capacity=0 leaves no images"):
        DualPrototypes(Cache(capacity=0))
    with pytest.raises(UserError, match="text_weight and dynamic_weight are 0"):
        DualMemory(text_weight=0, dynamic_weight=0).check(classifier_of().adaptation)


@torch.no_grad()
def test_support_images_are_the_static_memory_of_their_classes():
    """One support image, of the class tree_frog: its prototype is nearer to that image than to CLIP's text."""
    image = golden().image.run(images(1))
    support = LabelledFeatures(image[None], torch.tensor([2]))
    task = SimpleNamespace(class_names=CLASS_NAMES, templates=TEMPLATES, words={}, support=support)
    zero_shot, kept = classifier_of(), classifier_of("support_memory", task=task)
    x, text = views(zero_shot, 1, 1), zero_shot.class_embeddings()
    (without,), (with_it,) = (DualMemory().follow(one, x, text) for one in (zero_shot, kept))
    assert "static" not in without and with_it["static"].argmax() == 2
    close(with_it["text"], without["text"])
    some = Classifier(golden(), kept.adaptation, ["tree_frog", "cat"])
    (found,) = DualMemory().follow(some, x, text)
    close(found["static"], with_it["static"][[2, 0]] / with_it["static"][[2, 0]].sum(), 1e-4)


@torch.no_grad()
def test_every_view_of_a_support_image_is_an_entry():
    kept = classifier_of("support_memory").adaptation.support_features()
    assert kept.image.shape == (1, 20, 64) and kept.labels.tolist() == task_on().support.labels.tolist() * 2
    close(kept.image.norm(dim=-1), torch.ones(1, 20))


@torch.no_grad()
def test_the_answer_by_confident_views_is_theirs_with_the_moved_prototypes():
    classifier = classifier_of()
    x, text = views(classifier, 2, 10), classifier.class_embeddings()
    found = DualPrototypes(Cache(alpha=6), selection=0.3, predict_from_views=True).follow(classifier, x, text)[-1]
    features = functional.normalize(x[-1], dim=-1)
    logits = golden().scale * features @ found["moved_text"].T
    chosen = entropy(logits).argsort()[:3]
    expected = logits[chosen].mean(dim=0)
    expected[found["present"]] += 6 * torch.exp(-5 * (1 - found["moved_keys"] @ features[chosen].mean(dim=0)))
    close(found["logits"], expected)


@torch.no_grad()
def test_the_original_view_is_the_image_and_confident_views_boost():
    classifier = classifier_of()
    x, text = views(classifier, 3, 10), classifier.class_embeddings()
    method = BoostedCaches(Cache(), RecentNegativeCache(), selection=0.3, original_view=True)
    found = method.follow(classifier, x, text)
    close(torch.stack([one["feature"] for one in found]), functional.normalize(x[:, 0], dim=-1))
    close(torch.stack([one["clip"] for one in found]), classifier(x[:, 0], classifier.image_cut))
    assert int(found[0]["counts"].sum()) > 1
