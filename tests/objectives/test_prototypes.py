"""How hard each class is held near zero-shot."""

from types import SimpleNamespace

import pytest
import torch

from clipadapt.interfaces import LabelledFeatures
from clipadapt.objectives import PrototypeConstraint
from tests.small import TASK, golden

PLAIN = PrototypeConstraint(golden(), TASK).multipliers


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("none", torch.zeros(5)),
        ("l2-balanced", torch.ones(5)),
        ("l2-constant", PLAIN.mean().repeat(5)),
        ("l2-corrected", PLAIN / PLAIN.mean()),
    ],
)
def test_the_constraints(constraint, expected):
    objective = PrototypeConstraint(golden(), TASK, constraint)
    torch.testing.assert_close(objective.multipliers, expected)
    output = SimpleNamespace(logits=torch.randn(2, 5), text=objective.start + 0.5, class_weights=None)
    losses = objective(output, torch.tensor([0, 1]))
    if constraint == "none":
        assert losses.keys() == {"cross_entropy"}
    else:
        torch.testing.assert_close(losses["penalty"], expected.mean() * 64 * 0.25)


def test_a_class_without_images_is_free():
    support = LabelledFeatures(TASK.support.image, torch.arange(10) % 4)
    task = SimpleNamespace(**{**vars(TASK), "support": support})
    multipliers = PrototypeConstraint(golden(), task).multipliers
    assert multipliers[4] == 0 and multipliers.isfinite().all()
    assert (PLAIN >= 0).all() and (PLAIN <= 1).all()
