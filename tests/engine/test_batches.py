import pytest
import torch

from clipadapt.engine.batches import BatchSampler


def steps(processes, gradient_accumulation_steps, epoch=0, count=11, batch_size=4):
    """The images that count in each step of an epoch, and the sum of their weights times processes."""
    ranks = [
        BatchSampler(count, batch_size, gradient_accumulation_steps, 5, rank, processes).epoch(epoch)
        for rank in range(processes)
    ]
    return [[part for parts in step for part in parts] for step in zip(*ranks, strict=True)]


def counted(parts):
    return sorted(index for part in parts if part.weight for index in part.indices)


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2, 5])
def test_every_image_once_an_epoch_in_the_same_batches(processes, gradient_accumulation_steps):
    found = [counted(parts) for parts in steps(processes, gradient_accumulation_steps)]
    assert sorted(index for step in found for index in step) == list(range(11))
    assert found == [counted(parts) for parts in steps(1, 1)]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 3])
def test_weights_average_to_the_mean_over_the_batch(processes, gradient_accumulation_steps):
    for parts in steps(processes, gradient_accumulation_steps):
        assert sum(part.weight for part in parts) / processes == pytest.approx(1)
        assert len({part.weight / len(part.indices) for part in parts if part.weight}) == 1


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2, 4])
def test_gradient_is_that_of_the_whole_batch(processes, gradient_accumulation_steps):
    x = torch.randn(11, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    for parts, batch in zip(steps(processes, gradient_accumulation_steps), steps(1, 1), strict=True):
        weight = torch.ones(3, dtype=torch.double, requires_grad=True)
        sum(part.weight * (x[part.indices] @ weight).square().mean() for part in parts).backward()
        whole = torch.ones(3, dtype=torch.double, requires_grad=True)
        (x[counted(batch)] @ whole).square().mean().backward()
        torch.testing.assert_close(weight.grad / processes, whole.grad)


def test_a_process_without_an_image_computes_one_that_does_not_count():
    last = list(
        BatchSampler(count=5, batch_size=4, gradient_accumulation_steps=1, seed=0, rank=1, processes=2).epoch(0)
    )[-1]
    assert [(part.indices, part.weight) for part in last] == [([0], 0.0)]


def test_epochs_differ_and_repeat():
    assert steps(1, 1, epoch=0) == steps(1, 1, epoch=0)
    assert steps(1, 1, epoch=0) != steps(1, 1, epoch=1)


def test_length_and_shares():
    batches = BatchSampler(11, 4, 1, 0)
    assert len(batches) == len(list(batches.epoch(0))) == 3
    assert batches.shares() == [4 / 11, 4 / 11, 3 / 11]


def test_an_epoch_may_end_early():
    whole, short = BatchSampler(11, 4, 1, 0), BatchSampler(11, 4, 1, 0, most=2)
    assert list(short.epoch(3)) == list(whole.epoch(3))[:2]
    assert len(short) == 2 and short.shares() == [1 / 2, 1 / 2]
    assert len(BatchSampler(11, 4, 1, 0, most=9)) == 3
