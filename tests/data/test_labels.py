import pytest

from clipadapt.data.labels import encode_labels, to_words
from clipadapt.errors import UserError


def test_words_are_classes_in_natural_order():
    names, numbers = encode_labels({"train": ["no 10", "no 2", "no 10"], "test": ["no 2"]}, None, "it")
    assert names == ["no 2", "no 10"] and numbers == {"train": [1, 0, 1], "test": [0]}


def test_words_are_classes_in_the_order_given():
    assert encode_labels({"train": ["cat", "dog"]}, ["dog", "owl", "cat"], "it")[1] == {"train": [2, 0]}


@pytest.mark.parametrize("labels", [[1, 0, 2], ["1", "0", "2"], ["1.0", "0.", "2"], ["1.000e+00", "0.000e+00", "2E0"]])
def test_numbers_count_along_the_class_names(labels):
    assert encode_labels({"train": labels}, ["cat", "dog", "owl"], "it") == (
        ["cat", "dog", "owl"],
        {"train": [1, 0, 2]},
    )


def test_numbers_that_are_class_names_are_no_indices():
    assert encode_labels({"train": ["7", "3"]}, ["3", "7"], "it")[1] == {"train": [1, 0]}


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ({"train": ["0", "1"]}, None, r"the labels of 'it' are numbers: say what they stand for.*data\.class_names"),
        ({"train": ["0", "1", "-1"]}, None, "the labels of 'it' are numbers"),
        ({"train": ["0", "1", "-1"]}, ["cat", "dog"], "data.class_names lacks: -1: "),
        ({"train": [0, 2]}, ["cat", "dog"], r"'it' has labels that data\.class_names lacks: 2: known are 0, 1"),
        ({"train": ["cat", "dgo"]}, ["cat", "dog"], r"lacks: dgo: did you mean 'dog'"),
        ({"train": ["cat", "dog"], "test": ["owl"]}, None, "has labels that its training images lack: owl"),
        ({"train": [*"abcdefg"]}, ["x", "y"], "lacks: a, b, c, d, e and 2 more"),
    ],
)
def test_labels_of_no_class(labels, class_names, message):
    with pytest.raises(UserError, match=message):
        encode_labels(labels, class_names, "it")


def test_underscores_are_spaces():
    assert to_words("polar__bear_") == "polar bear"
