"""What is added touches few places: a method of known parts is one YAML, a metric one line of its kind of task.

An adaptation of one's own is in test_own_method.py, a family of backbones in backbone/test_own_family.py, and a kind of
task in tasks/test_other_kind.py.
"""

import json
import sys

import pytest
import torch
from torchmetrics.classification import MulticlassF1Score

from clipadapt import config
from clipadapt.cli import main

METHOD = """
# @package _global_
defaults:
  - /adaptation@method.adaptation: context
  - /adaptation@method.also.pixels: pixel_frame
  - /objective@method.objective: text_consistency
  - _self_

method:
  name: framed_context
  title: A context and a frame of pixels
  adaptation: {n_ctx: 2}
"""
KIND = '''
from dataclasses import dataclass

from torchmetrics.classification import MulticlassF1Score

from clipadapt.tasks.base import Measure
from clipadapt.tasks.classification import NO_LABEL, Classification


@dataclass(frozen=True)
class WithF1(Classification):
    """Classification that also has the mean F1 of the classes."""

    def metrics(self, head):
        f1 = MulticlassF1Score(len(head.class_names), ignore_index=NO_LABEL)
        return super().metrics(head) | {"f1": Measure(f1, "mean F1")}
'''
WORDS = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=3"]
WORDS += ["engine.workers=0", "engine.cpu=true", "engine.epochs=1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    for group in ("method", "kind"):
        (folder / group).mkdir(parents=True)
    yield folder
    sys.modules.pop("f1", None)


def test_a_method_of_known_parts_is_one_yaml(folder, tmp_path, capsys):
    (folder / "method" / "framed_context.yaml").write_text(METHOD)
    words = ["method=framed_context", "method.also.pixels.size=2", *WORDS]
    found = config.compose(words, folder)["method"]
    assert found["name"] == "framed_context" and found["adaptation"]["n_ctx"] == 2
    assert main(["--config-dir", str(folder), *words, f"output={tmp_path / 'runs'}"]) == 0, capsys.readouterr().err
    (record,) = (tmp_path / "runs").rglob("result.json")
    assert record.parent.parent.name == "framed_context"
    context, frame = 2 * 128, 3 * (32**2 - 28**2)
    assert json.loads(record.read_text())["parameters"] == context + frame


def test_a_metric_is_one_line_of_its_kind_of_task(folder, tmp_path, capsys):
    (folder / "f1.py").write_text(KIND)
    (folder / "kind" / "with_f1.yaml").write_text("_target_: f1.WithF1\n")
    words = ["--config-dir", str(folder), "kind=with_f1", "method=linear_probe", *WORDS]
    assert main([*words, f"output={tmp_path / 'runs'}"]) == 0, capsys.readouterr().err
    assert "mean F1" in capsys.readouterr().out
    (record,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(record.read_text())
    assert 0 <= result["f1"] <= 1 and result["figures"]["f1"]["title"] == "mean F1"
    assert result["tests"]["test"].keys() >= {"accuracy", "f1", "zero_shot_f1"}

    answers = json.loads((record.parent / "predictions.json").read_text())["test"]
    metric = MulticlassF1Score(len(answers["class_names"]))
    value = metric(torch.tensor(answers["adapted"]), torch.tensor(answers["labels"]))
    assert result["f1"] == pytest.approx(float(value), abs=1e-6)
