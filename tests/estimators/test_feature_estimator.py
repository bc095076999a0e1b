"""The classifier of features: the fits are the engine's, weights count, pickles hold no code, mistakes are told."""

import pickle
import pickletools

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

import clipadapt
from clipadapt.sklearn import CLIPEmbedder, CLIPFeatureClassifier
from clipadapt.sklearn.labels import hold_out

X, Y = make_blobs(60, 8, centers=3, random_state=0)
LABELS = np.array(["ant", "bee", "cat"])[Y]
QUICK = ("engine.max_steps=5",)


@pytest.mark.slow
def test_a_fit_to_features_is_the_fit_to_their_images():
    backbone, task = clipadapt.load_backbone("tiny"), clipadapt.load_task("digits", shots=2, views=0)
    result = clipadapt.finetune(backbone, task, "taskres", QUICK, cpu=True, workers=0)
    images = [*task.support.images]
    with torch.no_grad():
        text = backbone.text_features(
            [[one.replace("{}", name) for one in task.templates] for name in task.class_names]
        )
        raw = torch.cat([backbone.image.run(backbone.transform(image)[None]) for image in images])
    own = CLIPFeatureClassifier("taskres", text.mean(dim=1).numpy(), backbone.scale, QUICK, cpu=True)
    own.fit(raw.numpy(), task.support.labels)
    close = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(own.decision_function(raw.numpy()), result.predictor.decision(images).numpy(), **close)


def test_the_linear_probe_is_that_of_scikit_learn_with_weights():
    weights = np.arange(len(X)) % 3
    own = CLIPFeatureClassifier(cpu=True).fit(X, Y, weights)
    theirs = LogisticRegression(C=0.316, max_iter=1000).fit(X.astype(np.float32), Y, weights)
    np.testing.assert_allclose(own.predict_proba(X), theirs.predict_proba(X), atol=1e-3)
    repeated = CLIPFeatureClassifier(cpu=True).fit(X.repeat(weights, axis=0), Y.repeat(weights))
    np.testing.assert_allclose(own.predict_proba(X), repeated.predict_proba(X), atol=1e-3)


def test_weights_of_zero_leave_images_out_of_any_method():
    weights = (np.arange(len(X)) % 2).astype(float)
    own = CLIPFeatureClassifier("taskres", overrides=QUICK, cpu=True).fit(X, Y, weights)
    odd = CLIPFeatureClassifier("taskres", overrides=QUICK, cpu=True).fit(X[1::2], Y[1::2])
    np.testing.assert_array_equal(own.decision_function(X), odd.decision_function(X))


def test_class_weights_are_the_text_features_in_sorted_order():
    ends = np.eye(3, 8)
    own = CLIPFeatureClassifier("zero_shot", ends, cpu=True).fit(X, LABELS)
    assert own.predict(ends).tolist() == ["ant", "bee", "cat"]


def test_a_pickle_holds_plain_values_and_answers_the_same():
    fitted = CLIPFeatureClassifier("tip_adapter_f", overrides=QUICK, cpu=True).fit(X, LABELS)
    content = pickle.dumps(fitted)
    names = " ".join(str(value) for _, value, _ in pickletools.genops(content) if isinstance(value, str))
    assert "torch" not in names.replace("torch.optim", "") and "clipadapt.sklearn.precomputed" not in names
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(X), fitted.predict_proba(X))


def test_a_damaged_pickle_is_told():
    fitted = CLIPFeatureClassifier(cpu=True).fit(X, LABELS)
    fitted._learned["tensors"] = fitted._learned["tensors"][:-9]
    with pytest.raises(clipadapt.UserError, match="damaged"):
        pickle.loads(pickle.dumps(fitted)).predict(X)


def test_methods_that_choose_hold_out_at_most_half_of_a_class():
    learned, held = hold_out([0] * 9 + [1] * 3 + [2], 4, seed=1)
    assert sorted(learned + held) == [*range(13)]
    assert [sum(place in own for place in held) for own in (range(9), range(9, 12), range(12, 13))] == [4, 1, 0]
    with pytest.raises(ValueError, match="validation split"):
        CLIPFeatureClassifier("tip_adapter", validation_images=0, cpu=True).fit(X, Y)


@pytest.mark.parametrize(
    "settings, weights, message",
    [
        ({"method": "coop"}, None, "changes the towers"),
        ({"method": "mta"}, None, "adapts at test time"),
        ({"method": "taskres"}, np.arange(len(X)), "weights that differ"),
        ({"class_weights": np.ones((2, 8))}, None, r"\[3, 8\]"),
        ({"overrides": ("engine.epoch=2",)}, None, "engine.epochs"),
        ({"overrides": ("shots=2",)}, None, "belongs to the task"),
        ({}, -np.ones(len(X)), "negative"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(settings, weights, message):
    with pytest.raises(ValueError, match=message) as caught:
        CLIPFeatureClassifier(cpu=True, **settings).fit(X, Y, weights)
    assert isinstance(caught.value, clipadapt.UserError) and "\n" not in str(caught.value)


def test_features_of_another_width_and_missing_values_are_told():
    fitted = CLIPFeatureClassifier(cpu=True).fit(X, Y)
    with pytest.raises(ValueError, match="8 features"):
        fitted.predict(X[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(np.where(X > 0, np.nan, X))


def test_the_embedder_gives_features_of_the_backbone():
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    found, unit = (CLIPEmbedder(unit=unit, cpu=True).fit(images).transform(images) for unit in (False, True))
    backbone = clipadapt.load_backbone("tiny")
    raw = torch.cat([backbone.image.run(backbone.transform(Image.fromarray(image))[None]) for image in images])
    expected = torch.nn.functional.normalize(raw.detach(), dim=-1).numpy()
    assert found.dtype == unit.dtype == np.float32
    np.testing.assert_allclose(found, raw.detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(unit, expected, atol=1e-5)
    assert CLIPEmbedder(cpu=True).get_feature_names_out()[-1] == "clipembedder127"
