"""Data sets in memory are saved once; tests/data/test_hub.py has those of the library itself."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import clipadapt
from clipadapt.data.given_data_sets import is_data_set, keep
from clipadapt.errors import UserError


class Stub:
    """An object as those of the library."""

    __module__ = "datasets.arrow_dataset"
    info = SimpleNamespace(dataset_name=None)

    def __init__(self, mark):
        self._fingerprint = mark

    def save_to_disk(self, place):
        Path(place).mkdir()
        Path(place, "state.json").write_text(self._fingerprint)


class Stream:
    __module__ = "datasets.iterable_dataset"


def test_a_data_set_is_saved_once_by_its_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPADAPT_CACHE", str(tmp_path))
    first, other = keep(Stub("a")), keep(Stub("b"))
    assert first != other and Path(first, "state.json").read_text() == "a"
    Path(first, "state.json").write_text("as it was")
    assert keep(Stub("a")) == first and Path(first, "state.json").read_text() == "as it was"
    assert not [*tmp_path.rglob("*.part")] and is_data_set(Stub("a")) and not is_data_set("digits")


def test_a_stream_is_refused():
    with pytest.raises(UserError, match="and one is Stream: a stream is named, as in load_task"):
        clipadapt.load_task(Stream())
