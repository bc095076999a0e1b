"""SIGTERM and SIGHUP end a command with its last epoch saved, in one sentence."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipadapt.cli import main
from clipadapt.cli.signals import stop_on_signals
from clipadapt.console import run_command
from clipadapt.engine import fit
from clipadapt.engine.fit import Fit
from clipadapt.errors import UserError
from clipadapt.stopping import Stopped, asked_to_stop, whole_change
from tests.test_api import FEW_DRAWINGS, assert_same, content

RUN = ["data=drawn", *FEW_DRAWINGS, "shots=1", "seed=1", "engine.epochs=3", "engine.workers=0", "engine.cpu=true"]


def send(number):
    os.kill(os.getpid(), number)


def command(output, *words):
    return main([*RUN, f"output={output}", *words])


def found(output):
    (result,) = output.rglob("result.json")
    return content(result.parent)


def in_the_second_epoch(monkeypatch, number):
    """Send a signal where the second epoch has done a step, and no checkpoint is due."""
    step, done = Fit._step, []

    def interrupted(*arguments):
        measured = step(*arguments)
        done.append(1)
        if len(done) == 2:
            send(number)
        return measured

    monkeypatch.setattr(Fit, "_step", interrupted)


def while_the_state_is_copied(monkeypatch, number):
    """Send a signal where half of the first epoch's state is copied over that of the epoch before."""
    copied, done = fit.copied, []

    def interrupted(*arguments):
        done.append(1)
        if len(done) == 2:
            send(number)
        return copied(*arguments)

    monkeypatch.setattr(fit, "copied", interrupted)


@pytest.mark.parametrize(
    "number, where",
    [
        (signal.SIGTERM, in_the_second_epoch),
        pytest.param(signal.SIGHUP, while_the_state_is_copied, marks=pytest.mark.slow),
    ],
)
def test_a_run_saves_its_last_epoch_and_goes_on_to_the_same_result(tmp_path, monkeypatch, capsys, number, where):
    where(monkeypatch, number)
    assert command(tmp_path / "stopped") == 128 + number
    said = capsys.readouterr().err
    assert said.count("\n") <= 2
    assert re.search(rf"Stopped by {number.name}\. Finished work is kept in .*shots1-seed1.*: run the same", said)
    monkeypatch.undo()
    assert asked_to_stop() is None and signal.getsignal(number) is signal.SIG_DFL
    assert command(tmp_path / "stopped") == 0
    assert "Going on after epoch 1 of 3" in capsys.readouterr().out
    assert command(tmp_path / "whole") == 0
    assert_same(found(tmp_path / "stopped"), found(tmp_path / "whole"))
    assert not [*tmp_path.rglob(".*")]


def test_a_change_is_finished_first():
    done = []

    def change():
        with whole_change():
            send(signal.SIGTERM)
            with whole_change():
                done.append("inner")
            done.append("outer")
        done.append("after")

    with stop_on_signals(), pytest.raises(Stopped):
        change()
    assert done == ["inner", "outer"]


def test_another_error_of_a_run_that_is_asked_to_stop_is_no_fault_of_ours(capsys):
    """As of a collective operation whose other processes have ended, or of a worker process."""

    def fail():
        try:
            send(signal.SIGTERM)
        except Stopped:
            raise RuntimeError("Connection closed by peer") from None

    with stop_on_signals():
        assert run_command(fail) == 143
    assert capsys.readouterr().err.strip() == (
        "Stopped by SIGTERM. Finished work is kept: run the same command again to continue."
    )


def test_a_second_signal_does_not_cut_short_what_the_first_began():
    with stop_on_signals():
        with pytest.raises(Stopped):
            send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGHUP)
        assert asked_to_stop() is signal.SIGTERM


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "handled"])
def test_a_signal_that_is_ignored_or_handled_stays_so(own):
    before = signal.signal(signal.SIGHUP, own)
    try:
        with stop_on_signals():
            assert signal.getsignal(signal.SIGHUP) is own
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is own
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_process_ends_at_once():
    with stop_on_signals():
        worker = os.fork()
        if worker == 0:
            send(signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM


def test_the_library_sets_no_handler_and_never_exits():
    package = Path(main.__code__.co_filename).parent.parent
    words = re.compile(r"\bsignal\.signal\(|\bsys\.exit\(|\bos\._exit\(|\braise SystemExit")
    files = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if words.search(path.read_text())}
    assert {file.partition("/")[0] for file in files} <= {"cli", "__main__.py"}


def test_ctrl_c_is_as_it_was(capsys):
    with stop_on_signals():
        assert run_command(lambda: send(signal.SIGINT) or 0) == 130
    assert "Stopped. Finished work is kept: run" in capsys.readouterr().err


def test_an_error_of_the_user_stays_one(capsys):
    def fail():
        raise UserError("no such images")

    assert run_command(fail) == 2
    assert capsys.readouterr().err == "clipadapt: no such images\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["engine.workers=2", "task.views=null"], ["compare", "methods=[coop]"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_of_its_own(tmp_path, number, words):
    few = [word for word in RUN if not (words[:1] == ["compare"] and word.startswith(("data=", "shots", "seed")))]
    grid = ["data=[drawn]", "shots=[1]", "seed=[1]"] if words[:1] == ["compare"] else []
    line = [*words, *grid, *few, "engine.epochs=2000", "engine.checkpoint_seconds=0", f"output={tmp_path}"]
    with subprocess.Popen([sys.executable, "-m", "clipadapt", *line], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not [*tmp_path.rglob("checkpoint*")]:
            pass
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert "Traceback" not in said and f"Stopped by {number.name}. Finished work is kept in" in said
