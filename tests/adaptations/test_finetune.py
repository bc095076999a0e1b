"""Weights trained themselves: which, where they are, and the way back."""

from types import SimpleNamespace

import pytest
import torch

from clipadapt import config
from clipadapt.adaptations.finetune import BiasFinetuning, FullFinetuning, ProjectionFinetuning
from clipadapt.backbone.open_clip import CLIP
from clipadapt.engine.checks import check_distance
from clipadapt.errors import UserError
from clipadapt.objectives import StartPenalty
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, adaptation, close, composed, golden, images

NODE = "method.adaptation."
CUTS = {
    ("full_finetuning", "image"): ("pixels", "features"),
    ("full_finetuning", "text"): ("features", "ids"),
    ("full_finetuning", "both"): ("pixels", "ids"),
    ("bias_finetuning", "both"): ("patches", "block.0"),
    ("projection_finetuning", "both"): ("tokens", "tokens"),
    ("norm_finetuning", "both"): ("block.0", "block.0"),
}


@pytest.mark.parametrize(("name", "towers"), CUTS)
def test_cuts_follow_from_what_is_trained(name, towers):
    classifier = Classifier(golden(), adaptation(name, f"method.adaptation.towers={towers}"), CLASS_NAMES)
    assert (classifier.image_cut, classifier.text_cut) == CUTS[name, towers]


def test_all_weights_of_both_towers():
    built = adaptation("full_finetuning", "method.adaptation.towers=both")
    expected = {name for name, _ in golden().model.named_parameters()} - {"logit_scale"}
    assert {name.replace("/", ".") for name, _ in built.named_parameters()} == expected
    biases = adaptation("bias_finetuning", "method.adaptation.towers=both")
    assert {name.replace("/", ".") for name, _ in biases.named_parameters()} == {n for n in expected if "bias" in n}
    projections = adaptation("projection_finetuning", "method.adaptation.towers=both")
    assert {name for name, _ in projections.named_parameters()} == {"visual/proj", "text_projection"}
    stage = biases.stages("image")["block.0"]
    assert stage.mlp.c_fc.weight is golden("cpu").image.blocks["block.0"].mlp.c_fc.weight


@pytest.mark.parametrize("name", ["full_finetuning", "bias_finetuning", "projection_finetuning"])
@torch.no_grad()
def test_interpolation_is_between_frozen_and_learned(name):
    built = adaptation(name)
    start = {name: weight.clone() for name, weight in built.named_parameters()}
    for weight in built.parameters():
        weight += 0.1 * torch.randn_like(weight)
    learned = {name: weight.clone() for name, weight in built.named_parameters()}
    built.interpolate(1)
    assert all(torch.equal(weight, learned[name]) for name, weight in built.named_parameters())
    built.interpolate(0.25)
    for name, weight in built.named_parameters():
        close(weight, 0.75 * start[name] + 0.25 * learned[name])
    built.interpolate(0)
    assert all(torch.equal(weight, start[name]) for name, weight in built.named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_rounded_backbone(dtype):
    clip = golden("cpu", dtype)
    classifier = Classifier(clip, FullFinetuning(clip, TASK, "both"), CLASS_NAMES)
    assert all(weight.dtype == torch.float32 for weight in classifier.adaptation.parameters())
    with torch.autocast("cpu", dtype):
        logits = classifier(images(2))
        logits.sum().backward()
    assert all(weight.grad.isfinite().all() for weight in classifier.adaptation.parameters())
    close(logits, Classifier(golden(), FullFinetuning(golden(), TASK, "both"), CLASS_NAMES)(images(2)), 0.1)


def test_a_resnet_keeps_its_statistics():
    clip = CLIP.load("RN50", None)
    before = {name: value.clone() for name, value in clip.model.named_buffers()}
    built = FullFinetuning(clip, TASK).train()
    pixels = images(1, 224)
    close(clip.image.run(pixels, stages=built.stages("image")), clip.image.run(pixels))
    assert [*built.stages("image")] == ["pixels", "layer.1", "layer.2", "layer.3", "layer.4", "tokens"]
    assert all(torch.equal(value, before[name]) for name, value in clip.model.named_buffers())
    projection = ProjectionFinetuning(clip, TASK)
    assert [name for name, _ in projection.named_parameters()] == ["visual/attnpool/c_proj/weight"]
    close(clip.image.run(pixels, stages=projection.stages("image")), clip.image.run(pixels))


def test_norms_of_blocks_from_one_on_and_those_outside():
    built = adaptation("norm_finetuning", f"{NODE}image_start=3", f"{NODE}text_start=2")
    assert {tower: [*built.stages(tower)] for tower in ("image", "text")} == {
        "image": ["block.3"],
        "text": ["block.2", "block.3"],
    }
    outside = adaptation("norm_finetuning", f"{NODE}outside_blocks=true", f"{NODE}image_start=9", f"{NODE}towers=image")
    found = {name.replace("/", ".") for name, _ in outside.named_parameters()}
    assert found == {f"visual.{norm}.{kind}" for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")}
    with pytest.raises(UserError, match="the text tower of this backbone has no layer norms of blocks that could be"):
        adaptation("norm_finetuning", f"{NODE}text_start=4")


def test_the_weight_of_the_distance_from_the_start():
    task = SimpleNamespace(class_names=CLASS_NAMES, support_shape=(1, 20, 64))
    for words, expected in {"1/shots": 1 / 4, "1/squared_shots": 1 / 16, "fixed": 3}.items():
        chosen = composed("method=prolip", f"method.objective.weight_by={words}", "method.objective.weight=3")
        objective = config.build(chosen["method"]["objective"], golden(), task, place="method.objective")
        assert objective.weight == expected


def test_a_distance_from_a_start_that_there_is_none_of():
    together = adaptation("projection_finetuning", "+adaptation@method.also.text=context")
    for built in (adaptation("context"), together):
        with pytest.raises(UserError, match="Context has no start whose distance could be measured: take another"):
            check_distance(StartPenalty, built)
    frozen = adaptation("projection_finetuning", "+adaptation@method.also.text=zero_shot")
    check_distance(StartPenalty, frozen)
    assert not frozen.squared_distance()


def test_nothing_to_train(monkeypatch):
    monkeypatch.setattr(BiasFinetuning, "choose", lambda self, tower, weights: {})
    with pytest.raises(UserError, match="the image tower of this backbone has no biases that could be trained"):
        BiasFinetuning(golden(), TASK)
