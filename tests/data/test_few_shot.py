"""Few-shot samples, against a record of CoOp's own."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from clipadapt.data.few_shot import make_task, sample
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import UserError

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "records" / "fewshot_indices.json").read_text())


def test_the_record_holds_all_its_samples():
    assert len(RECORD["samples"]) == 15


@pytest.mark.parametrize("drawn", RECORD["samples"], ids=lambda drawn: f"seed{drawn['seed']}-shots{drawn['shots']}")
def test_same_samples_as_coop(drawn):
    support, validation = sample(RECORD["train_labels"], RECORD["val_labels"], drawn["shots"], drawn["seed"])
    assert support == drawn["train_indices"]
    assert validation == drawn["val_indices"]


def test_without_a_validation_list_the_stream_goes_on_over_the_rest():
    labels = [index % 3 for index in range(30)]
    support, validation = sample(labels, None, 5, 7)
    stream = random.Random(7)
    by_hand = [stream.sample(range(label, 30, 3), 5) for label in range(3)]
    assert support == [index for drawn in by_hand for index in drawn]
    rest = [index for index in range(30) if index not in support]
    order = list(dict.fromkeys(labels[index] for index in rest))
    again = [stream.sample([index for index in rest if labels[index] == label], 4) for label in order]
    assert validation == [index for drawn in again for index in drawn]
    assert not set(support) & set(validation)


def test_the_support_set_does_not_depend_on_the_validation_list():
    labels = RECORD["train_labels"]
    assert sample(labels, None, 4, 2)[0] == sample(labels, RECORD["val_labels"], 4, 2)[0]


@pytest.mark.parametrize(("shots", "expected"), [(1, 1), (2, 2), (4, 4), (8, 4)])
def test_balanced_with_at_most_four_to_validate(shots, expected):
    labels = [index % 4 for index in range(80)]
    support, validation = sample(labels, None, shots, 1)
    assert set(Counter(labels[index] for index in support).values()) == {shots}
    assert set(Counter(labels[index] for index in validation).values()) == {expected}


def test_a_small_class_keeps_all_and_leaves_the_stream_alone():
    small_first = sample([0, 0, *[1] * 20], None, 5, 3)[0]
    assert small_first[:2] == [0, 1]
    assert [index - 2 for index in small_first[2:]] == sample([1] * 20, None, 5, 3)[0]


def test_seeds_differ_and_repeat():
    labels = [0, 1] * 40
    assert sample(labels, None, 8, 1) == sample(labels, None, 8, 1)
    assert sample(labels, None, 8, 1) != sample(labels, None, 8, 2)


@pytest.mark.parametrize("shots", [0, -1, 1.5, "4", True, None])
def test_shots_below_one(shots):
    with pytest.raises(UserError, match="shots must be a whole number of at least 1"):
        sample([0, 1], None, shots, 1)


def test_notes_on_many_classes_are_short():
    names = [f"class {number}" for number in range(3000)]
    images = [Image.new("RGB", (1, 1))] * 3000
    source = Source("many", names, ["{}"], Split(images, [*range(3000)]), None, {"test": Split(images[:1], [0])})
    with pytest.warns(UserWarning) as caught:
        make_task(source, 4, 1)
    (text,) = [str(each.message) for each in caught]
    assert len(text) < 1000 and "class 9 (1) and 2990 more" in text and "and 2989 more" in text
