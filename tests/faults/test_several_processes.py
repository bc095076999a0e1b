"""A job of two processes, one of which is killed, or which is asked to end, ends in a sentence and can be resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import clipadapt
from tests.test_api import FEW_DRAWINGS, assert_same, content

RUN = ["data=drawn", *FEW_DRAWINGS, "shots=1", "seed=1", "engine.workers=0", "engine.cpu=true"]
RUN += ["engine.epochs=300", "engine.checkpoint_seconds=0"]


def start(output):
    """Start a job of two processes of one machine."""
    root = str(Path(clipadapt.__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "clipadapt"]
    command = [sys.executable, "-m", *launcher, *RUN, f"output={output}"]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def workers(job):
    """Return the processes of a job, by rank."""
    children = psutil.Process(job.pid).children()
    return {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}


def stopped(output, act):
    """Return what a job said that something was done to while it trained, and its seconds to the end since then."""
    with start(output) as job:
        while job.poll() is None and not [*output.rglob("checkpoint*")]:
            time.sleep(0.05)
        processes = workers(job)
        act(job, processes)
        since = time.monotonic()
        said = job.communicate(timeout=90)[0]
        assert job.returncode and not any(process.is_running() for process in processes.values())
        return said, time.monotonic() - since


def finished(output):
    with start(output) as job:
        said = job.communicate(timeout=600)[0]
    assert not job.returncode, said
    (result,) = output.rglob("result.json")
    assert not [*output.rglob("checkpoint*")] and not [*output.rglob(".*")]
    return said, content(result.parent)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"))[1]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_killed(tmp_path, whole, rank):
    said, seconds = stopped(tmp_path, lambda job, processes: processes[rank].kill())
    assert seconds < 60
    sentences = ("another process of this job has ended", "Stopped by SIGTERM. Finished work is kept")
    assert any(sentence in said for sentence in sentences), said
    again, found = finished(tmp_path)
    assert "Going on after epoch" in again
    assert_same(found, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_job_is_asked_to_end(tmp_path, whole, number):
    said, seconds = stopped(tmp_path, lambda job, processes: job.send_signal(number))
    assert seconds < 60 and said.count(f"Stopped by {number.name}. Finished work is kept") == 2
    assert_same(finished(tmp_path)[1], whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_process_has_the_exit_code_of_the_signal(tmp_path, number):
    """Seen by the launcher alone, whose report has it."""

    def ask(job, processes):
        for process in processes.values():
            process.send_signal(number)

    said, _ = stopped(tmp_path, ask)
    assert f"exitcode  : {128 + number}" in said and "Traceback (most recent call last)" not in said.split("torch/")[0]
