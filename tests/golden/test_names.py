"""Choices that no record here makes reach the settings."""

import copy

import pytest

from tests.golden.quantities import HERE, Record, in_shape, settings_of


def settings_with(record, words, **values):
    """The test-time settings for a record with other hyper-parameters."""
    meta = copy.deepcopy(Record.read(HERE / f"records/{record}.json").meta) | words
    for name, value in values.items():
        meta["hyperparameters"][name]["value"] = value
    return settings_of(Record(meta, {}))["method"]


@pytest.mark.parametrize("words", ["", None])
def test_the_teacher_reads_the_placeholders_of_a_random_context(words):
    found = settings_with("rlcf", {}, n_ctx=3, context_words=words)
    assert found["test_time"]["templates"] == ["X X X {}."]
    assert (found["adaptation"]["words"], found["adaptation"]["n_ctx"]) == (None, 3)


@pytest.mark.parametrize("record", ["mta", "zero"])
def test_a_random_context_is_as_many_placeholders(record):
    assert settings_with(record, {}, n_ctx=3, context_words=None)["adaptation"]["templates"] == ["X X X {}."]


def test_the_sentence_of_a_record_is_that_of_the_method():
    assert settings_with("clipartt", {"templates": ["a sketch of a {}"]})["test_time"]["template"] == "a sketch of a {}"


def test_only_dimensions_of_size_one_may_differ():
    values = Record.read(HERE / "records/tps.json").arrays["init/shift"]
    assert in_shape(values[:1], (values.shape[1],), "shift").shape == (values.shape[1],)
    with pytest.raises(AssertionError):
        in_shape(values, values.T.shape, "shift")
