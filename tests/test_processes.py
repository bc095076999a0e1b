"""Two processes give what one gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import torch
from safetensors.torch import load_file

import clipadapt
from clipadapt.cli import main

SETTINGS = ["-m", "engine.cpu=true", "engine.workers=0", "engine.epochs=3"]
CASES = {
    # 30 images: the last batch of 7 has 2, that of 29 has 1 and leaves one process without
    "batches": [
        "shots=3",
        "method.adaptation.n_ctx=4",
        "engine.batch_size=7,29",
        "engine.gradient_accumulation_steps=2",
    ],
    # test sets of one batch of features: the other process has nothing to measure
    "few images, then again": [
        *(
            "data=drawn",
            "data.train_per_class=3",
            "data.validation_per_class=1",
            "data.test_images=12",
            "task.views=null",
        ),
        *("shots=1", "method=visual_prompting", "engine.batch_size=5", "engine.optimizer.lr=1", "rerun=false,true"),
    ],
}


def by_torchrun():
    """Two processes of one machine."""
    return [["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]]


def by_accelerate():
    """A process on each of two machines, which are both this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", "2"]
    machines = ["--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    return [[*launch, *machines, "--machine_rank", str(rank)] for rank in range(2)]


def two_processes(launchers, words):
    """Stdout of a command line run by all of the launchers at once."""
    root = str(Path(clipadapt.__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    commands = [[sys.executable, "-m", *launcher, "-m", "clipadapt", *words] for launcher in launchers]
    started = [subprocess.Popen(command, env=environment, text=True, stdout=PIPE, stderr=PIPE) for command in commands]
    said = [process.communicate(timeout=300) for process in started]
    assert not any(process.returncode for process in started), said
    return "".join(out for out, _ in said)


def runs(output):
    return {path.parent.relative_to(output): path.parent for path in output.rglob("result.json")}


@pytest.mark.parametrize(
    "launchers, words",
    [
        (by_torchrun, CASES["batches"]),
        pytest.param(by_accelerate, CASES["few images, then again"], marks=pytest.mark.slow),
    ],
    ids=CASES,
)
def test_two_processes_agree_with_one(tmp_path, launchers, words):
    said = two_processes(launchers(), [*SETTINGS, *words, f"output={tmp_path / 'two'}"])
    assert main([*SETTINGS, *words, f"output={tmp_path / 'one'}"]) == 0
    one, two = runs(tmp_path / "one"), runs(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) in (1, 2)
    for name in one:
        assert_agree(one[name], two[name])
    assert said.count("Plan") == said.count("Saved in") == 2


def assert_agree(one, two):
    results = [json.loads((directory / "result.json").read_text()) for directory in (one, two)]
    assert [result["processes"] for result in results] == [1, 2]
    tensors = [load_file(directory / "adaptation.safetensors") for directory in (one, two)]
    assert tensors[0].keys() == tensors[1].keys()
    assert max((tensors[0][name] - tensors[1][name]).abs().max() for name in tensors[0]) < 1e-4
    for test, figures in results[0]["tests"].items():
        other = results[1]["tests"][test]
        assert figures["images"] == other["images"]
        for key in ("accuracy", "zero_shot_accuracy", "calibration_error"):
            assert figures[key] == pytest.approx(other[key], abs=0.002)
    histories = [(directory / "metrics.jsonl").read_text().splitlines() for directory in (one, two)]
    assert len(histories[0]) == len(histories[1]) == 3
    for left, right in zip(*histories, strict=True):
        assert json.loads(left) == pytest.approx(json.loads(right), abs=1e-4)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_processes_that_would_each_do_the_whole_run_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["shots=1", f"output={tmp_path}"]) == 2
    assert "2 processes were started, and there is no GPU for them: add engine.cpu=true" in capsys.readouterr().err
