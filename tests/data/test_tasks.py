"""Splits, sources and few-shot tasks, on images held in memory."""

import pickle
import warnings
from dataclasses import replace

import pytest
from PIL import Image

from clipadapt.data.few_shot import make_task, sample
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import UserError


def split_of(*counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return Split([Image.new("RGB", (1, 1), (number, 0, 0)) for number in range(len(labels))], labels)


def source_of(train, validation=None, tests=None, **changes):
    names = ["cat", "dog", "owl"][: max(1, *train.labels) + 1]
    given = {"name": "pets", "class_names": names, "templates": ["a {}."]} | changes
    return Source(train=train, validation=validation, tests=tests or {}, **given)


def numbers(split):
    return [image.getpixel((0, 0))[0] for image in split.images]


def test_split():
    split = split_of(2, 1)
    assert len(split) == 3
    assert split[2][1] == 1
    chosen = split.select([2, 0])
    assert chosen.labels == [1, 0] and numbers(chosen) == [2, 0]
    with pytest.raises(ValueError, match="2 images with 1 labels"):
        Split(split.images[:2], [0])


def test_a_task_of_three_splits():
    source = source_of(split_of(9, 9), split_of(5, 5), {"test": split_of(3, 3), "night": split_of(1, 1)})
    task = make_task(source, shots=5, seed=2, views=None)
    assert (task.support_indices, task.validation_indices) == sample(
        source.train.labels, source.validation.labels, 5, 2
    )
    assert numbers(task.support) == task.support_indices
    assert numbers(task.validation) == task.validation_indices
    assert task.validation.labels == [0] * 4 + [1] * 4
    assert list(task.tests) == ["test", "night"]
    assert (task.name, task.class_names, task.templates) == ("pets", ["cat", "dog"], ["a {}."])
    assert (task.shots, task.seed, task.views) == (5, 2, None)


def test_validation_comes_from_the_rest_of_the_pool():
    task = make_task(source_of(split_of(9, 9), None, {"test": split_of(1, 1)}), shots=4, seed=1)
    assert len(task.validation) == 8
    assert not set(task.support_indices) & set(task.validation_indices)
    assert numbers(task.validation) == task.validation_indices
    assert len(task.tests["test"]) == 2


def test_without_a_test_set_the_rest_of_the_pool_is_it():
    source = source_of(split_of(9, 10))
    task = make_task(source, shots=2, seed=1)
    used = {*task.support_indices, *task.validation_indices}
    assert numbers(task.tests["test"]) == [number for number in range(19) if number not in used]


def test_with_a_validation_list_the_rest_is_what_the_support_leaves():
    task = make_task(source_of(split_of(5, 5), split_of(5, 5)), shots=4, seed=1)
    assert sorted([*numbers(task.tests["test"]), *task.support_indices]) == list(range(10))


def test_one_class_is_nothing_to_learn():
    with pytest.raises(UserError, match="'pets' has one class, cat; a task needs at least two"):
        make_task(replace(source_of(split_of(4, 4)), class_names=["cat"]), shots=1, seed=1)


def test_validation_images_are_tested_on_where_nothing_else_is_left():
    task = make_task(source_of(split_of(4, 4)), shots=2, seed=1)
    assert len(task.support) == 4 and not len(task.validation) and task.validation_indices == []
    assert sorted([*numbers(task.tests["test"]), *task.support_indices]) == list(range(8))


@pytest.mark.parametrize("shots", [4, 16, "all"])
def test_nothing_left_to_test_on(shots):
    with pytest.warns(
        UserWarning, match=r"'pets' has no test images: up to \d+ images a class are all its 8 images.* fewer"
    ):
        task = make_task(source_of(split_of(4, 4)), shots=shots, seed=1)
    assert len(task.support) == 8 and not task.tests and not len(task.validation)


def test_one_shot_is_one():
    with pytest.warns(
        UserWarning, match="has no test images: 1 image a class is all its 2 images, so that what learns"
    ):
        make_task(source_of(split_of(1, 1)), shots=1, seed=1)


def test_all_shots_are_all_images_of_unequal_classes():
    task = make_task(source_of(split_of(3, 7), None, {"test": split_of(1, 1)}), shots="all", seed=1)
    assert (task.shots, len(task.support)) == (7, 10)


@pytest.mark.parametrize("shots", [0, True, "every", 1.5])
def test_shots_that_are_none(shots):
    with pytest.raises(UserError, match=r"^shots must be a whole number of at least 1, or all, and .* is neither$"):
        make_task(source_of(split_of(4, 4)), shots=shots, seed=1)


def test_small_classes_bring_one_warning_that_names_them():
    source = source_of(split_of(20, 2, 3), None, {"test": split_of(1, 1, 1)})
    with pytest.warns(UserWarning) as caught:
        task = make_task(source, shots=4, seed=1)
    assert [str(warning.message) for warning in caught] == [
        "pets: fewer than 4 images to learn from, all of them used, in dog (2), owl (3)"
    ]
    assert task.support.labels.count(1) == 2 and task.validation.labels == [0] * 4


def test_classes_nothing_is_left_to_test_of_are_in_the_same_warning():
    with pytest.warns(UserWarning, match=r"used, in dog \(2\); no images in .test. of dog \(more images") as caught:
        make_task(source_of(split_of(20, 2, 20)), shots=4, seed=1)
    assert len(caught) == 1


def test_a_sound_task_brings_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_task(source_of(split_of(9, 9)), shots=4, seed=1)


def test_what_learns_sees_no_test():
    task = make_task(source_of(split_of(9, 9)), shots=4, seed=1)
    assert task.without_tests().tests == {}
    assert task.without_tests().support is task.support
    assert task.tests


def test_tasks_travel_between_processes():
    task = make_task(source_of(split_of(9, 9)), shots=4, seed=1)
    assert numbers(pickle.loads(pickle.dumps(task)).support) == numbers(task.support)


@pytest.mark.parametrize("shots", [0, -3])
def test_too_few_shots(shots):
    with pytest.raises(UserError, match="shots must be a whole number of at least 1"):
        make_task(source_of(split_of(9, 9)), shots=shots, seed=1)


@pytest.mark.parametrize("views", [-1, 1.5, "all", True])
def test_views_of_no_meaning(views):
    with pytest.raises(UserError, match="views must be null"):
        make_task(source_of(split_of(9, 9)), shots=1, seed=1, views=views)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ["a {}.", "a photo"]}, "the template 'a photo' has no {} for the class name"),
        ({"templates": []}, "templates must be a list of sentences"),
        ({"templates": "a photo of a {}."}, "templates must be a list of sentences"),
        ({"class_names": []}, "'pets' has no classes"),
        ({"class_names": ["cat", "cat"]}, "'pets' has classes of the same name: cat"),
    ],
)
def test_sources_that_are_no_task(changes, message):
    with pytest.raises(UserError, match=message):
        source_of(split_of(2, 2), **changes)


def test_classes_may_share_a_name_where_the_source_says_so():
    assert source_of(split_of(2, 2), class_names=["cat", "cat"], allow_duplicate_names=True).class_names == [
        "cat",
        "cat",
    ]


def test_a_source_for_testing_only_makes_a_task_with_nothing_to_learn_from():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = make_task(Source("pets", ["cat", "dog"], ["a {}."], split_of(), None, {"test": split_of(2, 2)}), 16, 1)
    assert (len(task.support), len(task.validation), len(task.pool), len(task.tests["test"])) == (0, 0, 0, 4)
    with pytest.raises(UserError, match="'pets' has no images to learn from, only some to test on: take method=zero_"):
        task.check_has_images()
    make_task(source_of(split_of(9, 9)), 1, 1).check_has_images()


def test_the_pool_is_all_that_is_not_tested_on():
    tested = make_task(source_of(split_of(9, 9), None, {"test": split_of(1, 1)}), shots=2, seed=1)
    assert tested.pool_indices == list(range(18)) and tested.pool.labels == [0] * 9 + [1] * 9
    rest = make_task(source_of(split_of(9, 9)), shots=2, seed=1)
    assert rest.pool_indices == sorted([*rest.support_indices, *rest.validation_indices])
    assert not {*numbers(rest.pool)} & {*numbers(rest.tests["test"])}


def test_base_to_new_keeps_the_base_classes_of_the_whole_sample():
    names = ["cat", "dog", "owl", "fox", "bee"]
    source = source_of(split_of(*[6] * 5), split_of(*[5] * 5), {"test": split_of(1, 2, 3, 4, 5)}, class_names=names)
    whole, task = make_task(source, shots=2, seed=3), make_task(source, shots=2, seed=3, classes="base")
    assert task.class_names == names[:3] and task.classes == "base"
    assert task.support_indices == whole.support_indices[:6] and numbers(task.support) == task.support_indices
    assert task.validation_indices == whole.validation_indices[:6] and numbers(task.pool) == list(range(18))
    base, new = task.tests["base"], task.tests["new"]
    assert base.class_names == names[:3] and base.labels == [0, 1, 1, 2, 2, 2]
    assert new.class_names == names[3:] and new.labels == [0] * 4 + [1] * 5 and numbers(new) == list(range(6, 15))


def test_base_to_new_needs_two_classes_in_each_half():
    source = source_of(split_of(3, 3, 3), None, {"test": split_of(1, 1, 1)})
    with pytest.raises(UserError, match="has 3 classes, and classes=base needs two in each half"):
        make_task(source, shots=1, seed=1, classes="base")
    with pytest.raises(UserError, match="classes must be all or base, not 'new'"):
        make_task(source, shots=1, seed=1, classes="new")
