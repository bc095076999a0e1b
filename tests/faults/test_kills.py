"""Runs that are killed, or find the disk full, at any of their calls to the file system lose nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import clipadapt
from clipadapt.console import run_command
from clipadapt.files import as_write_error
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.lock import hold, lock_path
from tests.faults.forked import fork

DRAWN = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12"]
SHORT = [*DRAWN, "shots=1", "seed=1", "engine.workers=0", "engine.cpu=true", "engine.cache=CACHE", "output=OUT"]
COOP = [*SHORT, "method=coop", "engine.epochs=2", "engine.checkpoint_seconds=0"]
TIP = [*SHORT, "method=tip_adapter_f", "shots=2", "engine.epochs=2", "engine.checkpoint_seconds=0"]
FEW = [word for word in SHORT if not word.startswith(("shots", "seed", "data=drawn"))]
CASES = {
    "coop": {"words": COOP, "cached": True},
    "coop again": {"words": [*COOP, "rerun=true"], "before": COOP, "cached": True},
    "tip_adapter_f": {"words": [word for word in TIP if word != "shots=1"], "cached": True},
    "encode": {"words": [*SHORT, "method=linear_probe"]},
    "compare": {
        "words": ["compare", "methods=[zero_shot,tip_adapter]", "data=[drawn]", "shots=[1]", "seed=[1]", *FEW],
        "cached": True,
    },
    "choose": {
        "words": ["choose", "methods=[zero_shot,tip_adapter]", "data=drawn", "shots=2", "seed=1", *FEW],
        "cached": True,
    },
    "sweep": {
        "words": ["-m", "method=zero_shot,tip_adapter", *SHORT],
        "cached": True,
    },
    "evaluate": {"words": ["evaluate", "RUN=OUT"], "before": COOP},
    "transfer": {"words": ["transfer", "RUN=OUT"], "before": COOP},
}


def study(place, **job):
    """Return the report of a job in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(clipadapt.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.forked"],
        input=json.dumps({**job, "root": str(place)}),
        capture_output=True,
        text=True,
        env=environment,
        cwd=environment["PYTHONPATH"],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EACH = 4
"""Of the calls of a small run, each so many is tried."""


def small_run(place):
    """Do a run without a backbone, in the steps of a real one: locked, resumed, saved after each epoch, finished."""
    directory = RunDirectory(place)
    with hold(place):
        directory.restore()
        directory.open({"seed": 1}, dict)
        directory.remove_leftovers()
        if not directory.finished:
            progress = directory.load_checkpoint(torch.device("cpu"), "images")
            while progress.epoch < 3:
                progress.epoch += 1
                progress.state = {"adaptation": {"x": torch.full((3,), float(progress.epoch))}}
                progress.history.append({"epoch": progress.epoch})
                directory.save_checkpoint(progress)
            directory.finish(progress.state["adaptation"], {}, progress.history, {"accuracy": 0.5})
    return 0


def computed_again(place):
    """Compute a finished run again, in the steps of a real one."""
    directory = RunDirectory(place)
    with hold(place):
        with as_write_error(place):
            directory.restore()
        fresh = directory.beside()
        fresh.remove()
        fresh.open({"seed": 1}, dict)
        fresh.finish({"x": torch.full((3,), 3.0)}, {}, [{"epoch": n} for n in (1, 2, 3)], {"accuracy": 0.5})
        with as_write_error(place):
            directory.replace_by(fresh)
    return 0


def found(place):
    """Return the files of a small run that a resumed one must have, with what they hold."""
    names = ("config.yaml", "result.json", "record.json", "metrics.jsonl", "adaptation.safetensors")
    return {name: (place / name).read_bytes() for name in names}


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("action", [small_run, computed_again])
def test_every_call_of_a_small_run(tmp_path, action, kill):
    place, start = tmp_path / "work" / "a" / "run", tmp_path / "start"
    (tmp_path / "work").mkdir()
    if action is computed_again:
        small_run(place)
    shutil.copytree(tmp_path / "work", start)
    code, said, total = fork(lambda: action(place), tmp_path)
    assert code == 0 and total > 20, said
    expected = found(place)
    for at in range(1 + 2 * kill, total + 1, EACH):
        shutil.rmtree(tmp_path / "work")
        shutil.copytree(start, tmp_path / "work")
        code, said, _ = fork(lambda: run_command(lambda: action(place)), tmp_path, at, kill)
        assert code == -signal.SIGKILL if kill else (code in (0, 2) and "Traceback" not in said), (at, said)
        if code == 2:
            assert "can't be" in said and "No space left" in said, (at, said)
            assert not [*place.rglob("*.part")], at
        code, said, _ = fork(lambda: action(place), tmp_path)
        assert code == 0 and found(place) == expected, (at, said)
        assert not lock_path(place).exists() and not [*place.rglob("*.part"), *place.glob("checkpoint*")]


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("case", CASES)
def test_every_call(tmp_path, case, kill):
    report = study(tmp_path, kill=kill, **CASES[case])
    sys.stdout.write(f"{case}: {report['taken']} of {report['calls']} calls, {report['states']} states\n")
    assert report["taken"] > 10 and not report["problems"]
