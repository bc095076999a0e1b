"""Sweeps: several runs at once are the runs that they are one after another, and so are a launcher's."""

import os
import subprocess
import sys

import pytest

from tests.test_api import FEW_DRAWINGS, assert_same, content

SETTINGS = ["data=drawn", "shots=1", *FEW_DRAWINGS, "engine.max_steps=3", "engine.workers=0"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "clipadapt"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Two runs one after another, with a cache of their own."""
    place = tmp_path_factory.mktemp("alone")
    sweep(place, place / "cache")
    return place


def sweep(place, cache, *words):
    command = [*PROGRAM, "-m", "seed=1,2", *SETTINGS, *words, f"output={place}", f"engine.cache={cache}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    return done.stdout


def results(place):
    """Tensors and metrics of the runs in a folder, by their directories."""
    return {path.parent.relative_to(place): content(path.parent) for path in place.rglob("result.json")}


def assert_same_runs(found, expected):
    assert len(found) == 2 and {*found} == {*expected}
    for name in found:
        assert_same(found[name], expected[name])


def test_runs_at_once_share_a_cache(alone, tmp_path):
    program = [*PROGRAM, f"output={tmp_path}", f"engine.cache={tmp_path}/cache", *SETTINGS]
    commands = [[*program, f"seed={seed}"] for seed in (1, 2)]
    started = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    assert_same_runs(results(tmp_path), results(alone))


def test_a_launcher_of_processes(alone, tmp_path):
    pytest.importorskip("submitit")
    said = sweep(tmp_path, tmp_path / "cache", "hydra/launcher=processes")
    assert f"Runs are in {tmp_path}; what the jobs said, in {tmp_path}/.submitit" in said
    assert_same_runs(results(tmp_path), results(alone))


def test_slurm_that_is_not_here_is_told():
    pytest.importorskip("submitit")
    words = ["-m", "seed=1,2", "hydra/launcher=slurm"]
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, env=ENVIRONMENT | {"PATH": ""})
    assert done.returncode == 2 and "hydra/launcher=slurm needs SLURM" in done.stderr and "Traceback" not in done.stderr


def test_the_configuration_for_slurm_composes():
    pytest.importorskip("submitit")
    words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "--cfg", "hydra"]
    done = subprocess.run([*PROGRAM, *words], check=True, capture_output=True, text=True)
    assert "SlurmLauncher" in done.stdout and "partition: gpu" in done.stdout and "gpus_per_node: 1" in done.stdout
