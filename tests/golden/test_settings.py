"""What a record's words become as our settings, where the records here show one of several ways to say them."""

import copy

import pytest

from tests.golden.quantities import HERE, Record, settings_of

PROMPTS = {
    "X X X X {}.": (None, "", "."),
    "X X X X {} texture.": (None, "", " texture."),
    "X X X X {}, a type of car": (None, "", ", a type of car"),
    "a photo of a {}.": ("a photo of a", "", "."),
    "a photo of a person doing {}.": ("a photo of a", "person doing", "."),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_prompt_of_a_record_of_tcp(prompt):
    record = copy.deepcopy(Record.read(HERE / "records/tcp.json"))
    record.meta["templates"]["prompt"] = prompt
    found = settings_of(record)["method"]["adaptation"]
    assert (found["words"], found["lead"], found["ending"]) == PROMPTS[prompt]


@pytest.mark.parametrize(("record", "words"), [("dept", ""), ("dept", None), ("coprompt", ""), ("coprompt", None)])
def test_a_random_context(record, words):
    read = copy.deepcopy(Record.read(HERE / f"records/{record}.json"))
    read.meta["hyperparameters"]["context_words"]["value"] = words
    assert settings_of(read)["method"]["adaptation"]["words"] is None
