"""Checkpoints: what they hold comes back exactly, and a damaged one costs an epoch, not the run."""

import warnings
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch

import clipadapt
from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError
from clipadapt.runs.checkpoints import Checkpoints
from clipadapt.runs.state_tree import decode, encode
from tests.faults.damages import DAMAGES

CPU = torch.device("cpu")
VALUES = {
    "numbers": [1, -2.5e-17, float("inf"), True, None, "text", 0.1 + 0.2],
    "pair": (0.9, (0.999, [])),
    "by number": {0: {"step": torch.tensor(3.0)}, 7: {}},
    "milestones": Counter({3: 1, 5: 2}),
    "ordered": OrderedDict(b=torch.arange(6).view(2, 3), a=torch.zeros(0, 4)),
    "rounded": torch.tensor([1.5, -0.0]).bfloat16(),
    "mask": torch.tensor([True, False]),
    "transposed": torch.arange(6.0).view(2, 3).T,
}


def assert_equal(one, other):
    """Check that two nested values are equal, bit for bit, and of the same types."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other)
    elif isinstance(one, dict):
        assert [*one] == [*other] and isinstance(other, Counter) == isinstance(one, Counter)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert type(one) is type(other) and len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        assert (type(one), one) == (type(other), other)


def saved(folder, *epochs):
    """Save a checkpoint after each of these epochs."""
    checkpoints = Checkpoints(folder)
    for epoch in epochs:
        rows = [{"epoch": number + 1, "loss": 1 / (number + 3)} for number in range(epoch)]
        checkpoints.save(TrainState(epoch, rows, 0.1 * epoch, {"x": torch.full((50,), epoch / 7)}, "mine"))
    return checkpoints


@pytest.mark.parametrize("name", VALUES)
def test_every_value_comes_back(name):
    tensors = {}
    coded = encode(VALUES[name], tensors)
    assert_equal(VALUES[name], decode(coded, tensors))


@pytest.mark.parametrize("value", [{1.5: 2}, {(1, 2): 3}, {1, 2}, object(), {"deep": [print]}])
def test_a_state_that_no_checkpoint_can_hold_is_told(value):
    with pytest.raises(
        UserError, match=r"engine\.optimizer or engine\.schedule has a .*, which no checkpoint can hold"
    ):
        encode(value, {})


def test_a_whole_state_comes_back_exactly(tmp_path):
    state = TrainState(3, [{"epoch": 1, "loss": 0.1 + 0.2, "lr": 1e-300}], 2.5, VALUES, "mine")
    Checkpoints(tmp_path).save(state)
    assert_equal(vars(state), vars(Checkpoints(tmp_path).load(CPU)))


def test_the_last_two_stay(tmp_path):
    checkpoints = saved(tmp_path, 1, 2, 3, 7)
    assert checkpoints.epochs() == [7, 3] and len([*tmp_path.iterdir()]) == 2
    saved(tmp_path, 4)
    assert checkpoints.epochs() == [4, 3]
    checkpoints.remove()
    assert not [*tmp_path.iterdir()] and checkpoints.load(CPU) is None


def test_no_file_of_ours_is_a_pickle():
    sources = [path.read_text() for path in Path(clipadapt.__file__).parent.rglob("*.py")]
    assert not [word for word in ("torch.load(", "torch.save(", "import pickle") if any(word in x for x in sources)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_used(damage, tmp_path):
    checkpoints = saved(tmp_path, 2, 5)
    DAMAGES[damage](checkpoints.path(5))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = checkpoints.load(CPU)
    assert found.epoch == 2 and found.history[-1]["epoch"] == 2
    assert torch.equal(found.state["x"], torch.full((50,), 2 / 7))
    said = [str(one.message) for one in told]
    assert len(said) == (damage != "gone") and all("checkpoint-5.safetensors: " in text for text in said)
    saved(tmp_path, 5)
    assert checkpoints.load(CPU).epoch == 5


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "gone"])
def test_without_a_whole_one_the_way_on_is_told(damage, tmp_path):
    checkpoints = saved(tmp_path, 2, 5)
    for epoch in (2, 5):
        DAMAGES[damage](checkpoints.path(epoch))
    with pytest.raises(UserError, match=r"no checkpoint .*-5\..*-2\..* rerun=true begins again") as caught:
        checkpoints.load(CPU)
    assert "\n" not in str(caught.value)
    checkpoints.remove()
    assert not [*tmp_path.iterdir()]


def test_of_another_format(tmp_path, monkeypatch):
    from clipadapt.runs import checkpoints

    monkeypatch.setattr(checkpoints, "FORMAT", "2")
    saved(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not of format 1"):
        Checkpoints(tmp_path).load(CPU)
