"""A process computes with the threads that it was given, and leaves PyTorch's number of threads as it was."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import clipadapt
from clipadapt import threads
from clipadapt.cli import main
from clipadapt.runs import train
from tests.small import golden, images

ROOT = Path(__file__).resolve().parent.parent
LARGE = 10 * threads.SMALL


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No number of threads in the environment, and two of PyTorch's."""
    for name in (threads.CHOSEN, threads.SHARE, threads.LOCAL_PROCESSES, *threads.SLURM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({}, 8),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "6"}, 3),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"SLURM_CPUS_PER_TASK": "2", "LOCAL_WORLD_SIZE": "4"}, 1),
        ({"LOCAL_WORLD_SIZE": "2"}, 4),
    ],
)
def test_cores_are_those_that_were_given(environment, cores, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert threads.count_cores() == cores
    assert threads.count_threads(LARGE) == cores and threads.count_threads(threads.SMALL - 1) == 1


def test_affinity_and_shares_count():
    code = """
import os
from clipadapt.threads import count_cores, shared_cores
several = count_cores()
with shared_cores(1000):
    assert count_cores() == 1
assert count_cores() == several
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
assert count_cores() == 1
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_small_backbone_has_one_thread_and_pytorch_its_own_again():
    with threads.limited_threads(threads.SMALL - 1):
        assert torch.get_num_threads() == 1
        with threads.limited_threads(LARGE):
            assert torch.get_num_threads() == 2  # never more than the program had
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), threads.limited_threads(1):
        _ = 1 / 0
    assert torch.get_num_threads() == 2


def test_the_users_own_number_is_left_alone(monkeypatch):
    monkeypatch.setenv(threads.CHOSEN, "2")
    with threads.limited_threads(1):
        assert torch.get_num_threads() == 2


def test_computations_at_once_leave_every_thread_its_number():
    """The one that began first ends first, and threads that are new meanwhile have the program's number afterwards."""
    first, second = (threads.limited_threads(1) for _ in range(2))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        one.submit(first.__enter__).result()
        other.submit(second.__enter__).result()
        assert [pool.submit(torch.get_num_threads).result() for pool in (one, other)] == [1, 1]
        one.submit(first.__exit__, None, None, None).result()
        other.submit(second.__exit__, None, None, None).result()
        assert [pool.submit(torch.get_num_threads).result() for pool in (one, other)] == [2, 2]
    with ThreadPoolExecutor(1) as late:
        assert late.submit(torch.get_num_threads).result() == 2


def test_a_fit_and_a_prediction_have_one_thread(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "_begin", lambda *given, begin=train._begin: seen.append(count()) or begin(*given))
    task = clipadapt.load_task("drawn", shots=1, train_per_class=3, validation_per_class=1, test_images=12)
    backbone = clipadapt.load_backbone()
    result = clipadapt.finetune(backbone, task, "coop", cpu=True, workers=0, max_steps=1)
    predictor = clipadapt.load(result.save(tmp_path / "run"), device="cpu")
    precompute = predictor.model.precompute
    monkeypatch.setattr(predictor.model, "precompute", lambda: seen.append(count()) or precompute())
    pictures = [image for image, _ in (task.tests["test"][number] for number in range(12))]
    expected = predictor.predict_proba(pictures)
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda number: predictor.predict_proba(pictures), range(16))]
    assert all(torch.equal(one, expected) for one in found)
    assert seen[:2] == [1, 1]


def count() -> int:
    return torch.get_num_threads()


def test_a_batch_gives_the_same_with_one_thread_and_with_two():
    pixels, found = images(64), []
    for number in (1, 2):
        torch.set_num_threads(number)
        found.append(golden().model.encode_image(pixels))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("environment", "count"),
    [({}, threads.SHORT), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_of_our_own_programs_wait_shortly(environment, count, monkeypatch):
    for name in (threads.SPIN_COUNT, threads.WAIT_POLICY):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    main(["--version"])
    assert os.environ.get(threads.SPIN_COUNT) == count


DEFAULT = [sys.executable, "-m", "clipadapt"]


def run_at_once(count: int, folder: Path) -> tuple[float, float]:
    """Wall-clock seconds of the longest of default runs at once, and CPU seconds of each."""
    environment = {key: value for key, value in os.environ.items() if key != threads.CHOSEN}
    words = [[f"output={folder}", f"engine.cache={folder}/cache{number}", f"seed={number}"] for number in range(count)]
    before, began = os.times(), time.monotonic()
    started = [
        subprocess.Popen([*DEFAULT, *some], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) for some in words
    ]
    assert [process.wait(timeout=600) for process in started] == [0] * count
    used = os.times()
    cpu = used.children_user + used.children_system - before.children_user - before.children_system
    return time.monotonic() - began, cpu / count


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_runs_at_once_take_their_fair_share(count, tmp_path):
    cores = len(os.sched_getaffinity(0))
    alone = run_at_once(1, tmp_path / "alone")
    together = run_at_once(count, tmp_path / "together")
    assert together[0] < 1.5 * max(1, count / cores) * alone[0]
    assert together[1] < 1.5 * alone[1]
