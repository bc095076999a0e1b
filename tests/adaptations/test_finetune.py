"""Weights trained themselves: which, where they are, and the way back."""

import pytest
import torch

from clipadapt.adaptations.finetune import BiasFinetuning, FullFinetuning
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

CUTS = {
    ("full_finetuning", "image"): ("pixels", "features"),
    ("full_finetuning", "text"): ("features", "ids"),
    ("full_finetuning", "both"): ("pixels", "ids"),
    ("bias_finetuning", "both"): ("patches", "block.0"),
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
    stage = biases.stages("image")["block.0"]
    assert stage.mlp.c_fc.weight is golden("cpu").image.blocks["block.0"].mlp.c_fc.weight


@pytest.mark.parametrize("name", ["full_finetuning", "bias_finetuning"])
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


def test_nothing_to_train(monkeypatch):
    monkeypatch.setattr(BiasFinetuning, "trains", lambda self, name: False)
    with pytest.raises(UserError, match="the image tower of this backbone has no weights that could be trained"):
        BiasFinetuning(golden(), TASK)
