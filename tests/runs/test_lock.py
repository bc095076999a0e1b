"""One process at a time computes a run; who waits says for whom."""

import fcntl
import multiprocessing
import os
import signal
import time
import warnings

import pytest

from clipadapt.errors import UserError, WriteError
from clipadapt.runs import lock
from clipadapt.runs.lock import hold, hold_and_tidy, lock_path, tidy

FORK = multiprocessing.get_context("fork")


def hold_until(directory, pipe):
    with hold(directory):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a run until it is sent something by the pipe."""
    pipe, theirs = FORK.Pipe()
    process = FORK.Process(target=hold_until, args=(tmp_path / "deep" / "run", theirs))
    process.start()
    assert pipe.poll(60)
    yield process, pipe
    process.kill()
    process.join()


def test_the_second_waits_and_says_for_whom(tmp_path, holder, monkeypatch):
    process, pipe = holder
    monkeypatch.setattr(time, "sleep", lambda seconds: (pipe.send("end"), process.join(60)))
    said = f"run is being computed by process {process.pid} on .* since 2"
    with pytest.warns(UserWarning, match=said), hold(tmp_path / "deep" / "run"):
        assert not process.is_alive()
    assert not [*tmp_path.rglob(".*")]


def test_one_of_several_processes_does_not_wait(tmp_path, holder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"by process {holder[0].pid}"), hold(tmp_path / "deep" / "run"):
        pass
    monkeypatch.setenv("RANK", "1")
    with hold(tmp_path / "deep" / "run"):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    path = lock_path(tmp_path / "deep" / "run")
    tidy(tmp_path / "deep" / "run", lambda: pytest.fail("it is held"))
    assert path.exists()
    os.kill(holder[0].pid, signal.SIGKILL)
    holder[0].join()
    assert path.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with hold(tmp_path / "deep" / "run"):
            pass
    assert not path.exists() and path.parent.is_dir()
    path.write_text("half a")
    done = []
    tidy(tmp_path / "deep" / "run", lambda: done.append(path.exists()))
    assert done == [True] and not path.exists()


def test_a_worker_process_that_outlives_the_holder_does_not_hold(tmp_path):
    end = FORK.Event()
    with hold(tmp_path / "run"):
        worker = FORK.Process(target=end.wait, args=(60,))
        worker.start()
    with open(lock_path(tmp_path / "run"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with hold(tmp_path / "other"):
        end.set()
        worker.join()


def test_a_folder_that_another_lock_needs_stays(tmp_path):
    with hold(tmp_path / "a" / "b" / "one"):
        with hold(tmp_path / "a" / "two"):
            pass
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def count_up(path, times):
    """Add one to the number in a file, in two steps that a lock must keep together."""
    for _ in range(times):
        with hold(path.parent / "run"):
            number = int(path.read_text())
            path.write_text(str(number + 1))


def test_processes_that_take_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "INTERVAL", 0.001)
    (tmp_path / "number").write_text("0")
    processes = [FORK.Process(target=count_up, args=(tmp_path / "number", 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "150"


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.warns(UserWarning, match="can't be locked"), hold(tmp_path / "run"):
        pass


def test_a_folder_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file can't be written"), hold(tmp_path / "file" / "run"):
        pass


def test_a_folder_of_tables_is_made_locked_and_tidied(tmp_path):
    folder = tmp_path / "compare" / "study"
    with hold_and_tidy(folder):
        assert lock_path(folder).exists() and folder.is_dir()
        (folder / ".rows.csv.1.part").touch()  # as of a killed process
        (folder / "rows.csv").touch()
    with hold_and_tidy(folder):
        assert [path.name for path in folder.iterdir()] == ["rows.csv"]
    assert [path.name for path in folder.parent.iterdir()] == ["study"]
