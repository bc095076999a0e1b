"""The classifier of images: scikit-learn's tools around it, kinds of images, words of labels, pickles."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import clipadapt
from clipadapt.sklearn import CLIPClassifier, CLIPEmbedder, CLIPFeatureClassifier

drawn = np.random.default_rng(0)
Y = np.arange(24) % 2
X = (drawn.integers(0, 60, (24, 8, 8, 3)) + 180 * Y[:, None, None, None]).astype(np.uint8)
WORDS = {0: "a dark image", 1: "a white image"}


def make(method="linear_probe", **settings):
    return CLIPClassifier(method, **{"class_names": WORDS, "views": 0, "cpu": True, **settings})


def test_it_answers_as_finetune_and_holds_what_it_learned_in_a_pickle():
    fitted = make("taskres", overrides=("engine.max_steps=3",), views=2).fit(X, Y)
    assert fitted.classes_.tolist() == [0, 1] and len(fitted.result_.history) == 3
    decision, shares = fitted.decision_function(X), fitted.predict_proba(X)
    assert decision.shape == (24,) and shares.shape == (24, 2)
    np.testing.assert_array_equal(fitted.predict(X), (decision > 0).astype(int))
    np.testing.assert_allclose(fitted.result_.predictor.predict_proba([*X]).numpy(), shares, atol=1e-5)
    content = pickle.dumps(fitted)
    assert len(content) < 20_000  # the backbone is loaded again
    again = pickle.loads(content)
    np.testing.assert_array_equal(again.predict_proba(X), shares)
    assert again.result_.record["backbone"] == fitted.result_.record["backbone"]


def test_folds_and_clones_take_it():
    assert cross_val_score(make("zero_shot"), X, Y, cv=2).shape == (2,)
    assert clone(make(seed=3)).get_params()["seed"] == 3


@pytest.mark.slow
def test_searches_and_calibration_take_it():
    assert cross_val_score(make(), X, Y, cv=2).mean() > 0.9
    grid = GridSearchCV(make(), {"overrides": [("method.adaptation.C=0.1",), ("method.adaptation.C=1",)]}, cv=2)
    assert grid.fit(X, Y).score(X, Y) > 0.9
    assert CalibratedClassifierCV(make(), cv=2).fit(X, Y).predict_proba(X).shape == (24, 2)


def test_features_go_to_any_classifier_in_a_pipeline():
    for last in (LogisticRegression(), CLIPFeatureClassifier("zs_lp", overrides=("engine.max_steps=3",), cpu=True)):
        assert make_pipeline(CLIPEmbedder(cpu=True), last).fit(X, Y).score(X, Y) > 0.9


class Column:
    """A table with columns, as pandas has it."""

    columns, iloc, shape = ("path",), property(lambda self: self), (24, 1)

    def __init__(self, values):
        self.values = values

    def __getitem__(self, key):
        return np.array(self.values, dtype=object)


def test_paths_images_and_columns_are_the_same_images(tmp_path):
    paths = [tmp_path / f"{place}.png" for place in range(len(X))]
    for path, pixels in zip(paths, X, strict=True):
        Image.fromarray(pixels).save(path)
    fitted = make().fit(X, Y)
    expected = fitted.predict_proba(X)
    forms = [paths, [*map(str, paths)], np.array([*map(str, paths)]), [*map(Image.fromarray, X)], Column(paths)]
    for form in forms:
        np.testing.assert_allclose(fitted.predict_proba(form), expected, atol=1e-5)
    np.testing.assert_allclose(make().fit(paths, Y).predict_proba(X), expected, atol=1e-4)


def test_labels_that_are_words_are_read_by_clip_and_come_back():
    words = np.array(["a white image", "a dark image"])[Y]
    fitted = make("zero_shot", class_names=None).fit(X, words)
    assert fitted.result_.record["class_names"] == fitted.classes_.tolist() == ["a dark image", "a white image"]
    assert {*fitted.predict(X)} <= {*words}


def test_a_label_may_have_several_names():
    found = make("zero_shot", class_names={0: ["cat", "kitten"], 1: "dog"}).fit(X, Y)
    other = make("zero_shot", class_names={0: "cat", 1: "dog"}).fit(X, Y)
    assert found.result_.record["words"] == {"cat": ["cat", "kitten"]}
    assert not np.allclose(found.predict_proba(X[:2]), other.predict_proba(X[:2]))
    assert {*found.predict(X)} <= {0, 1}


def test_all_images_are_learned_from_but_those_that_a_choice_is_made_on():
    assert make().fit(X, Y).result_.record["support_shape"][1] == 24
    chosen = make("tip_adapter", overrides=("method.adaptation.betas=2",)).fit(X, Y)
    assert chosen.result_.record["support_shape"][1] == 16


def test_weights_of_images_count_where_a_method_can_weigh_them():
    weights = 1 + np.arange(24) % 2 * 5
    weighed = make().fit(X, Y, weights).predict_proba(X)
    assert not np.allclose(weighed, make().fit(X, Y).predict_proba(X), atol=1e-3)
    with pytest.raises(ValueError, match="weights that differ"):
        make("taskres").fit(X, Y, weights)


@pytest.mark.parametrize(
    "images, labels, settings, message",
    [
        (X, Y, {"class_names": None}, r"labels without words are in y: 0, 1"),
        (X, Y, {"class_names": {0: "one", 1: "one"}}, "the same words"),
        (X, Y * 0, {}, "y has one class"),
        (X, Y[:3], {}, "24 images, and y has 3 labels"),
        ([*X[:2], "a.png"], Y[:3], {}, "images of one kind, and item 2 is of the kind path"),
        (X[0], Y, {}, "several images"),
        (X.astype(float), Y, {}, "8-bit pixels"),
        (["no.png", "file.png"], [0, 1], {}, "no.png"),
        ([3, 4], [0, 1], {}, "item 0 of X is of the type int"),
        (X, Y, {"method": "nothing"}, "nothing"),
        (X, Y, {"method": "upl"}, "labels images itself"),
        (X, Y, {"templates": ("a photo",)}, "templates"),
        (X, Y, {"views": "x"}, "views='x' does not fit: it must be a whole number"),
        (X, Y, {"views": -1}, "views=-1 does not fit"),
        (X, Y, {"overrides": ("task.resize=pad",)}, "a parameter of the estimator"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(images, labels, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        make(**settings).fit(images, labels)
    assert isinstance(caught.value, clipadapt.UserError)
