"""Class weights and linear heads: what golden records and contracts don't show."""

import pytest
import torch

from clipadapt.adaptations import Composed
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

NODE = "method.adaptation."


@torch.no_grad()
def test_a_residual_of_zero_is_raw_zero_shot_with_names_as_written():
    built = adaptation("task_residual")
    assert built.prompts(["tree_frog"]) == [["a photo of a tree_frog.", "a drawing of the tree_frog."]]
    weights = golden().text_features(built.prompts(CLASS_NAMES)).mean(dim=1)
    expected = built.logits(golden().image.run(images(4)), weights, golden().scale)
    close(Classifier(golden(), built, CLASS_NAMES)(images(4)), expected)
    close(Classifier(golden(), adaptation("learned_class_weights"), CLASS_NAMES)(images(4)), expected)


@pytest.mark.parametrize("start", ["zero_shot", "random"])
@torch.no_grad()
def test_interpolation_leads_to_zero_shot(start):
    built, learned = adaptation("adapted_head", f"{NODE}start={start}"), torch.randn(5, 64)
    adapter = built.down.weight.clone()
    built.weight.copy_(learned)
    built.interpolate(1.0)
    assert torch.equal(built.weight, learned)
    built.interpolate(0.25)
    close(built.weight, 0.25 * learned + 0.75 * built.zero_shot)
    built.interpolate(0.0)
    assert torch.equal(built.weight, built.zero_shot) and torch.equal(built.down.weight, adapter)


def test_a_random_start_is_small_and_isnt_the_text():
    built = adaptation("linear_head", f"{NODE}start=random")
    assert built.weight.abs().max() <= 64**-0.5
    assert not torch.equal(built.weight, built.zero_shot)


def test_what_has_no_start_says_so():
    with pytest.raises(UserError, match="TaskResidual has no start to go back to"):
        Composed(
            golden(), TASK, {"head": adaptation("task_residual"), "pixels": adaptation("pixel_frame")}
        ).interpolate(0.5)
    Composed(golden(), TASK, {"head": adaptation("linear_head"), "text": adaptation("zero_shot")}).interpolate(0.5)
    adaptation("zero_shot").interpolate(0.5)


def test_a_reduction_too_large():
    with pytest.raises(UserError, match="reduction 65 leaves no channel of the backbone's 64"):
        adaptation("adapted_head", f"{NODE}reduction=65")
