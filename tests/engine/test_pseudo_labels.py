"""Labels of zero-shot CLIP: which images are taken, and that nothing else depends on the labels that are hidden."""

from dataclasses import replace
from functools import cache

import pytest

from clipadapt.adaptations.base import Capabilities
from clipadapt.data.few_shot import make_task
from clipadapt.data.sources import digits, drawn
from clipadapt.data.tasks import UNLABELLED, Split
from clipadapt.engine.preparing import prepare_run
from clipadapt.engine.pseudo_labels import most_confident
from clipadapt.errors import UserError
from tests.engine.tasks import CONTEXT, fit, prepare, same, settings, task


def first(source, count):
    """The source with the first so many images of its pool."""
    return replace(source, train=source.train.select(range(count)))


@cache
def tens():
    """Two shots from a hundred digits, of which zero-shot CLIP takes at least so many for each class."""
    return make_task(first(digits(), 100), 2, 1)


def shapes():
    return make_task(drawn(train_per_class=3, validation_per_class=1, test_images=12), 1, 1)


def guessed(clip, given, choice="confident"):
    return prepare_run(clip, given, CONTEXT, settings(), pseudo_labels=choice)


def hidden(given):
    """The task as it is where labels aren't known."""
    return replace(given, pool=Split(given.pool.images, [UNLABELLED] * len(given.pool)))


def test_the_most_confident_of_each_class():
    labels, confidences = [0, 2, 0, 0, 2, 0], [0.5, 0.9, 0.7, 0.6, 0.8, 0.7]
    assert most_confident(labels, confidences, 2) == [2, 5, 1, 4]
    assert most_confident(labels, confidences, 9) == [2, 5, 3, 0, 1, 4]


@pytest.mark.parametrize("make", [shapes, tens])
def test_the_support_set_is_what_zero_shot_clip_is_most_confident_of(clip, make):
    given = make()
    run = guessed(clip, given)
    found, support = run.pseudo_labels, run.task.support
    shots, pool = given.shots, given.pool
    assert [*map(support.labels.count, range(len(given.class_names)))] == [shots] * len(given.class_names)
    assert run.task.support_indices != given.support_indices
    assert all(
        image == pool.images[index] for image, index in zip(support.images, run.task.support_indices, strict=True)
    )
    labels = [pool.labels[index] for index in run.task.support_indices]
    assert found.right == sum(map(int.__eq__, labels, found.labels)) / len(labels) > 0.6
    assert found.labels == support.labels and all(0.1 < value <= 1 for value in found.confidences)
    for start in range(0, len(labels), shots):
        assert found.confidences[start : start + shots] == sorted(found.confidences[start : start + shots])[::-1]
    again = guessed(clip, given)
    assert (again.pseudo_labels, again.task.support_indices) == (found, run.task.support_indices)


def test_hidden_labels_change_nothing_but_what_is_known_of_them(clip):
    known, unknown = guessed(clip, tens()), guessed(clip, hidden(tens()), None)
    assert unknown.pseudo_labels == replace(known.pseudo_labels, right=None)
    assert same(fit(known)[0], fit(unknown)[0])


def test_every_image(clip):
    given = tens()
    run = guessed(clip, given, "all")
    assert run.task.support_indices == given.pool_indices == list(range(100))
    assert len(run.pseudo_labels.confidences) == 100 and run.pseudo_labels.right > 0.5


def test_labels_stay_unless_others_are_asked_for(clip):
    given = tens()
    run = guessed(clip, given, None)
    assert run.task is given and run.pseudo_labels is None


def test_where_the_rest_of_the_pool_is_tested_on_it_stays_apart(clip):
    given = make_task(replace(first(digits(), 100), tests={}), 2, 1)
    run = guessed(clip, given, "all")
    assert run.task.support_indices == given.pool_indices and len(given.pool) == 40
    assert len(run.task.tests["test"]) == 60


def test_a_class_that_few_images_are_taken_for_is_told(clip):
    with pytest.warns(UserWarning, match=r"noise, by zero-shot CLIP: fewer than 2 images to learn from.*\(\d\)"):
        run = guessed(clip, task(images=3))
    assert set(run.task.support_indices) <= {0, 1, 2}


def test_there_is_no_validation_split(clip):
    assert len(guessed(clip, tens()).task.validation) == 0

    class Chooses(CONTEXT.func):
        capabilities = Capabilities(needs_validation=True)

    with pytest.raises(UserError, match="no images left for one: it needs labels"):
        prepare_run(clip, tens(), Chooses, settings(), pseudo_labels="all")


@pytest.mark.parametrize("kept", ["cache", None])
def test_kept_or_not_they_are_the_same(clip, kept, tmp_path):
    cache = None if kept is None else str(tmp_path)
    run = prepare_run(clip, tens(), CONTEXT, settings(cache=cache), pseudo_labels="confident")
    assert run.pseudo_labels == guessed(clip, tens()).pseudo_labels
    assert bool([*tmp_path.iterdir()]) == (kept is not None)


def test_a_run_of_labels_is_prepared_as_before(clip):
    assert prepare(clip).pseudo_labels is None
