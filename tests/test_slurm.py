"""Runs on a real SLURM, which the tests start on this machine: `pytest -m slurm`."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import slurm
from tests.test_api import FEW_DRAWINGS
from tests.test_processes import assert_agree
from tests.test_sweeps import assert_same_runs, assert_table, results

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "clipadapt"]
SETTINGS = ["data=drawn", *FEW_DRAWINGS, "engine.workers=0", "engine.cpu=true"]
LAUNCHER = ["hydra/launcher=slurm", *(f"hydra.launcher.{key}=null" for key in ("gpus_per_node", "mem_gb"))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of commands on a cluster of this machine."""
    if obstacle := slurm.find_obstacle():
        pytest.skip(obstacle)
    with slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "PYTHONPATH": str(ROOT)}


def submit(cluster, place, *words):
    pytest.importorskip("submitit", reason="pip install 'clipadapt[slurm]'")
    command = [*PROGRAM, "-m", *SETTINGS, *words, *LAUNCHER, f"output={place}", f"engine.cache={place}/cache"]
    return subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_sweep_of_jobs_is_the_sweep_of_one_process(cluster, tmp_path):
    words = ["shots=1", "seed=1,2", "engine.max_steps=3"]
    started = submit(cluster, tmp_path / "jobs", *words, "hydra.launcher.cpus_per_task=1")
    out, said = started.communicate(timeout=900)
    assert started.returncode == 0, said
    slurm.run([*PROGRAM, "-m", *SETTINGS, *words, f"output={tmp_path / 'alone'}"], cluster)
    assert_table(out)
    assert said.splitlines() == [line for line in said.splitlines() if line.startswith("note: ")] and "sacct" in said
    assert len(said.splitlines()) == 1, said
    assert_same_runs(results(tmp_path / "jobs"), results(tmp_path / "alone"))


def test_a_job_that_is_cut_off_goes_on(cluster, tmp_path):
    """The time limit of a minute comes before the fit's end; submitit puts the job back into the queue."""
    words = ["shots=1", "seed=1", "engine.epochs=100000", "engine.checkpoint_seconds=1"]
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=5", "hydra.launcher.cpus_per_task=2"]
    started = submit(cluster, tmp_path, *words, *limit)
    try:
        logs = wait_for(lambda: [*tmp_path.glob(".submitit/*/*_log.out")], 300)
        wait_for(lambda: "Going on after epoch" in logs[0].read_text(), 900)
    finally:
        slurm.run(["scancel", "--user=root"], cluster)
        started.terminate()
        started.communicate()
    assert logs[0].read_text().count("Plan") == 2


def wait_for(find, seconds):
    """What is found, as soon as there is anything."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)
    return found


def test_a_fit_over_two_nodes_agrees_with_one_process(cluster, tmp_path):
    words = [*SETTINGS, "shots=3", "method.adaptation.n_ctx=4", "engine.batch_size=7", "engine.epochs=3"]
    (port,) = slurm.free_ports(1)
    meeting = ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", *meeting]
    nodes = ["srun", "--partition=pair", "--nodes=2", "--ntasks=2"]
    slurm.run([*nodes, *torchrun, "-m", "clipadapt", *words, f"output={tmp_path / 'two'}"], cluster)
    slurm.run([*PROGRAM, *words, f"output={tmp_path / 'one'}"], cluster)
    (one,), (two,) = ([path.parent for path in (tmp_path / name).rglob("result.json")] for name in ("one", "two"))
    assert json.loads((two / "result.json").read_text())["processes"] == 2
    assert_agree(one, two)
