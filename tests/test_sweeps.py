"""Sweeps: several runs at once are the runs that they are one after another, and so are a launcher's."""

import os
import subprocess
import sys

import pytest

from clipadapt.cli import main, sweeps
from clipadapt.report.sweeps import sweep_sheet
from tests.test_api import FEW_DRAWINGS, assert_same, content

SETTINGS = ["data=drawn", "shots=1", *FEW_DRAWINGS, "engine.max_steps=3", "engine.workers=0"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "clipadapt"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Two runs one after another, with a cache of their own."""
    place = tmp_path_factory.mktemp("alone")
    assert_table(sweep(place, place / "cache"))
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


def assert_table(said):
    """The last table has a line for each of the two runs, with two percentages."""
    lines = said[said.rindex("Sweep of 2 runs: accuracy") :].splitlines()
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines if line.startswith("│")]
    assert [line[2:4] for line in cells] == [["1", "1"], ["1", "2"]]
    assert all(cell.endswith("%") for line in cells for cell in line[4:])


@pytest.mark.slow
def test_runs_at_once_share_a_cache(alone, tmp_path):
    program = [*PROGRAM, f"output={tmp_path}", f"engine.cache={tmp_path}/cache", *SETTINGS]
    commands = [[*program, f"seed={seed}"] for seed in (1, 2)]
    started = [subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) for command in commands]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    assert_same_runs(results(tmp_path), results(alone))


@pytest.mark.slow
def test_a_launcher_of_processes(alone, tmp_path):
    pytest.importorskip("submitit")
    said = sweep(tmp_path, tmp_path / "cache", "hydra/launcher=processes")
    assert f"Runs are in {tmp_path}; what the jobs said, in {tmp_path}/.submitit" in said
    assert_table(said)
    assert_same_runs(results(tmp_path), results(alone))


def test_the_table_names_what_was_swept_and_what_has_no_result():
    words = ["method=zero_shot,coop", "shots=1", "engine.epochs=2,3", "output=here"]
    found = [*sweeps.list_runs(sweeps.list_choices(words, None), None)]
    assert [list(labels.values()) for labels, _ in found] == [
        [method, "digits", "1", "1", epochs] for method in ("zero_shot", "coop") for epochs in ("2", "3")
    ]
    assert len({directory for _, directory in found}) == 4
    assert all(directory.is_relative_to("here/digits/tiny") for _, directory in found)
    figures = {"accuracy": {"title": "accuracy", "percent": True}}
    metrics = {"figures": figures, "tests": {"test": {}}, "zero_shot_accuracy": 0.5, "accuracy": 0.75}
    known = [metrics, None, {**metrics, "tests": {}}, metrics]
    sheet = sweep_sheet([(labels, one) for (labels, _), one in zip(found, known, strict=True)])
    assert sheet.head == ["method", "data", "shots", "seed", "engine.epochs", "zero-shot", "adapted"]
    assert [line[-2:] for line in sheet.groups[0]] == [
        ["50.0 %", "75.0 %"],
        ["-", "-"],
        ["-", "-"],
        ["50.0 %", "75.0 %"],
    ]
    assert len(sheet.notes) == 1


def test_a_sweep_with_a_run_that_fails_ends_with_its_table_and_the_reason(tmp_path, capsys):
    root = tmp_path / "images"
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_text("no image")
    words = ["-m", "seed=1,2", "shots=1", "data=folder", f"data.root={root}", "engine.cpu=true"]
    assert main([*words, f"output={tmp_path}"]) == 2
    said = capsys.readouterr()
    assert "Sweep of 2 runs" in said.out and "no result" in said.out
    assert "1.png" in said.err and "Traceback" not in said.err


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
