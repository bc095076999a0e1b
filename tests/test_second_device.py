"""Nothing is left on the CPU when the backbone is on another device: every method, and the whole path of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import clipadapt
from clipadapt.adaptations.features import FeatureAdapter
from clipadapt.engine.accelerator import forget_accelerator
from clipadapt.test_time.caches import Cache
from tests.engine.tasks import split, task
from tests.golden.quantities import tiny
from tests.second_device import DEVICE, Misplaced, second_device
from tests.small import needed

METHODS = sorted(path.stem for path in (Path(__file__).parent.parent / "conf" / "method").glob("*.yaml"))
SHORT = ["engine.max_steps=1", "engine.workers=0", "engine.cache=null"]
SMALLER = {
    name: ["method.test_time.views=10"]
    for name in ("ctpt", "mta", "tps", "tpt", "ttl", "zero", "boostadapter", "dmn", "dmn_tf", "dpe")
}
SMALLER |= {name: ["method.adaptation.betas=5", "method.adaptation.alphas=5"] for name in ("ape", "ape_t", "tip_x")}
SMALLER["dynaprompt"] = ["method.test_time.views=10", "method.test_time.prompts=3"]
SMALLER["rlcf"] = ["method.test_time.views=10", "method.test_time.teacher={name:tiny,pretrained:embedded}"]
SMALLER["rtpt"] = ["method.test_time.views=10", "method.test_time.neighbours=5"]
SMALLER |= {"clipartt": ["method.test_time.steps=1"], "watt": ["method.test_time.steps=1", "method.test_time.rounds=1"]}
SMALLER |= {name: ["engine.epochs=1"] for name in ("cross_modal", "cross_modal_adapter")}
SMALLER["lp_plus_plus"] = ["method.adaptation.epochs=10"]  # alpha moves with the tenth
SMALLER["transclip_few_shot"] = ["method.test_time.iterations=2", "method.test_time.inner_iterations=2"]
SMALLER |= {name: needed(name, task().class_names) for name in ("cupl", "vcd")}
SMALLER["promptkd"] = ["method.objective.teachers=[{name:tiny,pretrained:embedded}]"]


@pytest.fixture(autouse=True, scope="module")
def device():
    with second_device():
        yield
    forget_accelerator()


def test_tensors_answer_where_they_are():
    x = torch.ones(2, 3, device=DEVICE)
    assert x.device == DEVICE and x.is_cuda and not x.is_cpu
    assert (x[0] * 2).device == torch.nn.Parameter(x).device == torch.zeros_like(x).device == DEVICE
    assert x.cpu().device.type == "cpu" and torch.ones(2).to(DEVICE).device == DEVICE
    assert torch.nn.Linear(3, 2).to(DEVICE)(x).device == DEVICE


def test_mixing_raises():
    x, other = torch.ones(3, device=DEVICE), torch.ones(3)
    for mixed in (lambda: x + other, lambda: torch.cat([x, other]), lambda: other[x.long()], lambda: other @ x):
        with pytest.raises(Misplaced):
            mixed()
    with pytest.raises(TypeError):
        x.numpy()
    assert (x * torch.tensor(2.0))[torch.tensor([0, 1])].device == DEVICE


def test_what_a_call_makes_is_where_it_was_given_tensors():
    there = torch.arange(3, device=DEVICE)
    for x, device in ((there, DEVICE), (there.cpu(), torch.device("cpu"))):
        assert functional.one_hot(x, 4).device == x.new_tensor([1, 2]).device == torch.block_diag(x).device == device


def test_gradients_are_where_their_tensors_are():
    x = torch.ones(3, requires_grad=True)
    (x.to(DEVICE) * 2).sum().backward()
    assert x.grad.device.type == "cpu"
    x = torch.ones(4, 3, device=DEVICE, requires_grad=True)
    (gradient,) = torch.autograd.grad(x.split([1, 3])[0].sum(), [x])  # zeros for the part that isn't used
    assert gradient.device == DEVICE


@pytest.fixture(scope="module")
def clip():
    return tiny(0, "cpu")


def finetuned(clip, name, *overrides):
    chosen_on = {"validation": split([0, 1, 2]), "validation_indices": [7, 8, 9]}
    return clipadapt.finetune(clip, replace(task(), **chosen_on), name, [*SHORT, *SMALLER.get(name, []), *overrides])


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_is_measured(clip, name):
    assert 0 <= finetuned(clip, name).metrics["accuracy"] <= 1
    assert clip.device == DEVICE


class Scaled(torch.autograd.Function):
    """Its gradient is scaled by a constant that was left on the CPU."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.ones(gradient.shape[-1])


EDITS = FeatureAdapter.edits


@pytest.mark.parametrize("edit", [lambda x: x + torch.zeros(x.shape[-1]), Scaled.apply], ids=["forward", "backward"])
def test_a_constant_left_on_the_cpu_is_found(clip, monkeypatch, edit):
    def edits(self, tower, image=None):
        return {name: lambda x, old=old: edit(old(x)) for name, old in EDITS(self, tower, image).items()}

    monkeypatch.setattr(FeatureAdapter, "edits", edits)
    with pytest.raises(Misplaced):
        finetuned(clip, "clip_adapter")


def test_a_constant_left_on_the_cpu_in_a_test_time_step_is_found(clip, monkeypatch):
    monkeypatch.setattr(Cache, "class_scores", lambda self, weights: weights.sum(dim=-1) + torch.zeros(len(weights)))
    with pytest.raises(Misplaced):
        finetuned(clip, "tda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of four pictures of each of three classes."""
    root = tmp_path_factory.mktemp("images")
    made = split([0, 1, 2] * 4)
    for number, (picture, label) in enumerate(zip(made.images, made.labels, strict=True)):
        (root / "abc"[label]).mkdir(exist_ok=True)
        picture.save(root / "abc"[label] / f"{number}.png")
    return root


@pytest.mark.parametrize(
    "name",
    [
        "tip_adapter_f",
        "tpt",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("coop", "clip_lora", "rlcf", "tps", "dynaprompt")),
    ],
)
def test_a_run_is_measured_again_and_predicts(name, folder, tmp_path):
    backbone = clipadapt.load_backbone("tiny")
    task = clipadapt.load_task("folder", shots=1, root=str(folder), views=0)
    result = clipadapt.finetune(backbone, task, name, [*SHORT, *SMALLER.get(name, [])])
    directory = result.save(tmp_path / "run")
    again = clipadapt.evaluate(directory)
    assert again["accuracy"] == result.metrics["accuracy"]
    predictor = clipadapt.load(directory, device=str(DEVICE))
    images = [Image.fromarray(np.full((40, 50, 3), shade, np.uint8)) for shade in (0, 200)]
    assert len(predictor.predict(images)) == 2
