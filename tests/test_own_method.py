"""A method of the user's own: a file and a YAML in a folder, without touching the package."""

import csv
import json
import sys

import pytest
import torch

import clipadapt
from clipadapt.cli import main

MODULE = '''
import torch
from torch import nn

from clipadapt.adaptations.base import Adaptation


class Shift(Adaptation):
    """A learned shift of the image features."""

    def __init__(self, clip, task, scale: float = 1.0):
        super().__init__(clip, task)
        self.scale = scale
        self.shift = nn.Parameter(torch.zeros(clip.width))

    def edits(self, tower, image=None):
        return {"features": lambda x: x + self.scale * self.shift.to(x.dtype)} if tower == "image" else {}
'''
METHOD = """
# @package _global_
defaults:
  - /adaptation@method.adaptation: shift
  - /objective@method.objective: cross_entropy
  - _self_

method:
  name: my_shift
  title: A shift

engine:
  epochs: 3
  optimizer:
    lr: 0.5
"""
DATA = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    for group in ("method", "adaptation"):
        (folder / group).mkdir(parents=True)
    (folder / "own_shift.py").write_text(MODULE)
    (folder / "adaptation" / "shift.yaml").write_text("_target_: own_shift.Shift\nscale: 2.0\n")
    (folder / "method" / "my_shift.yaml").write_text(METHOD)
    yield folder
    sys.modules.pop("own_shift", None)


@pytest.fixture
def run(folder, tmp_path):
    words = ["--config-dir", str(folder), "method=my_shift", *DATA, "engine.workers=0", "engine.cpu=true"]
    assert main([*words, f"output={tmp_path / 'outputs'}"]) == 0
    (found,) = tmp_path.rglob("result.json")
    return found.parent


def test_it_runs_is_loaded_evaluated_and_predicts(run, folder, tmp_path, capsys):
    own = ["--config-dir", str(folder)]
    assert run.parent.name == "my_shift"
    metrics = json.loads((run / "result.json").read_text())
    classifier = clipadapt.load(run, config_dir=folder)
    shift = classifier.model.adaptation.state_dict()["shift"]
    assert metrics["parameters"] == shift.numel() and shift.any()
    assert classifier.model.adaptation.scale == 2

    capsys.readouterr()
    assert main(["evaluate", f"run={run}", *own]) == 0
    assert f"{metrics['accuracy']:.1%}"[:-1] in capsys.readouterr().out

    image = clipadapt.load_task("drawn", shots=1).support[0][0]
    image.save(tmp_path / "image.png")
    assert main(["predict", f"run={run}", f"images={tmp_path / 'image.png'}", "format=csv", *own]) == 0
    head, row = csv.reader(capsys.readouterr().out.splitlines())
    written = dict(zip(head, row, strict=True))
    assert written["class"] == classifier.predict(image)[0]
    probabilities = torch.tensor([float(written[f"p({name})"]) for name in classifier.class_names])
    torch.testing.assert_close(probabilities, classifier.predict_proba(image)[0], atol=1e-3, rtol=0)


def test_the_api_takes_it_too(folder):
    task = clipadapt.load_task("drawn", shots=1, test_images=12)
    backbone = clipadapt.load_backbone("tiny")
    result = clipadapt.finetune(backbone, task, method="my_shift", config_dir=folder, cpu=True, workers=0)
    assert list(result.tensors) == ["shift"] and result.tensors["shift"].any()


def test_it_is_listed(folder, capsys):
    assert main(["methods", "--config-dir", str(folder)]) == 0
    assert "my_shift" in capsys.readouterr().out


def test_its_values_are_checked(folder, tmp_path, capsys):
    words = ["--config-dir", str(folder), "method=my_shift", *DATA, f"output={tmp_path}"]
    assert main([*words, "method.adaptation.scale=wide", "method.adaptation.skale=1"]) == 2
    message = capsys.readouterr().err
    assert "method.adaptation.scale=wide" in message and "skale" in message


def test_without_the_folder_it_is_unknown(run, capsys):
    assert main(["predict", f"run={run}", f"images={run / 'pictures'}"]) == 2
    assert "own_shift" in capsys.readouterr().err
