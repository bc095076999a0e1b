"""A process of a job that has ended is told by the others in one sentence."""

import pytest

from clipadapt.engine.processes import as_lost_process
from clipadapt.errors import LostProcess


@pytest.mark.parametrize(
    ("processes", "text", "told"),
    [("2", "[gloo/transport/tcp/pair.cc] closed", True), ("1", "gloo", False), ("2", "shapes differ", False)],
)
def test_only_a_failed_connection_of_several_processes_is_a_lost_one(tmp_path, monkeypatch, processes, text, told):
    monkeypatch.setenv("WORLD_SIZE", processes)
    expected = (LostProcess, "another process of this job has ended") if told else (RuntimeError, f"^{text}$")
    with pytest.raises(expected[0], match=expected[1]) as caught, as_lost_process(tmp_path):
        raise RuntimeError(text)
    assert isinstance(caught.value, LostProcess) == told
