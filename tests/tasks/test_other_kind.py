"""A kind of task that the library doesn't know: the angle of a drawn line, by regression, in one file and its YAML."""

import json
import sys

import pytest

import clipadapt
from clipadapt.cli import main

KIND = '''
"""The angle of a line: the mean of angles that prompts name, weighted by how well each fits the image."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional
from torchmetrics.regression import MeanAbsoluteError

from clipadapt.data import Source, Split
from clipadapt.objectives import Objective
from clipadapt.objectives.base import Output
from clipadapt.tasks import Head, Measure, TaskKind


class Regressor(Head):
    def __init__(self, clip, adaptation, names, max_rows, activation_checkpointing):
        super().__init__(clip, adaptation, max_rows, activation_checkpointing)
        self.class_names = list(names)
        self.angles = torch.tensor([float(name) for name in names])
        self.prompts = self.prepare_text(adaptation.prompts(self.class_names))

    def precompute(self):
        return self.adaptation.class_embeddings(self.encode_text(self.prompts))

    def output(self, x, start="pixels", text=None):
        image = self.encode_image(x, start)
        text = self.precompute() if text is None else text
        weights = self.adaptation.logits(image.float(), text.float(), self.clip.scale).softmax(dim=-1)
        outputs = weights @ self.angles.to(weights)
        return Output(outputs, image, text, frozen=lambda: image, classify=lambda features: features)


class SquaredError(Objective):
    def forward(self, output, targets):
        return {"squared": functional.mse_loss(output.logits / 90, targets / 90)}


@dataclass(frozen=True)
class Angle(TaskKind):
    leads = "error"

    def collate(self, targets):
        return torch.tensor(targets, dtype=torch.float32)

    def head(self, clip, adaptation, class_names, max_rows=None, activation_checkpointing=False):
        return Regressor(clip, adaptation, class_names, max_rows, activation_checkpointing)

    def default_objective(self, clip, task):
        return SquaredError(clip, task)

    def score(self, outputs, targets):
        return (outputs - targets).abs().mean()

    def metrics(self, head):
        return {"error": Measure(MeanAbsoluteError(), "error in degrees", percent=False, higher_is_better=False)}

    def uncounted(self, head, device):
        return torch.zeros(0, device=device), torch.zeros(0, device=device)


def line(angle):
    image = Image.new("RGB", (32, 32), "white")
    turn = np.deg2rad(angle)
    x, y = 13 * np.cos(turn), 13 * np.sin(turn)
    ImageDraw.Draw(image).line([16 - x, 16 + y, 16 + x, 16 - y], fill="black", width=3)
    return image


def lines(images: int = 60) -> Source:
    random = np.random.default_rng(0)
    train, test = (random.uniform(10, 80, images).round(1).tolist() for _ in range(2))
    splits = [Split([line(angle) for angle in angles], angles) for angles in (train, test)]
    names = ["0", "30", "60", "90"]
    return Source("lines", names, ["a line at {} degrees."], splits[0], None, {"test": splits[1]})
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    for group in ("kind", "data"):
        (folder / group).mkdir(parents=True)
    (folder / "angles.py").write_text(KIND)
    (folder / "kind" / "angle.yaml").write_text("_target_: angles.Angle\n")
    (folder / "data" / "lines.yaml").write_text("_target_: angles.lines\nimages: 60\n")
    yield folder
    sys.modules.pop("angles", None)


def test_another_kind_of_task_is_one_file(folder, tmp_path, capsys):
    """From the command line to prediction; the kind's file has about 80 lines, of which 20 draw its data."""
    words = ["--config-dir", str(folder), "kind=angle", "data=lines", "method=clip_adapter", f"output={tmp_path}/runs"]
    words += ["method.objective=null", "shots=40", "engine.cpu=true", "engine.workers=0"]
    words += ["engine.epochs=60", "optimizer@engine.optimizer=adam", "engine.optimizer.lr=0.003"]
    assert main(words) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "error in degrees" in shown and "accuracy" not in shown
    (record,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(record.read_text())
    assert result["tests"]["test"]["images"] == 60
    assert result["error"] < result["zero_shot_error"]
    assert result["validation"].keys() == {"error", "zero_shot_error", "images"}
    directory = record.parent
    predicted = json.loads((directory / "predictions.json").read_text())["test"]
    errors = [abs(answer - target) for answer, target in zip(predicted["adapted"], predicted["labels"], strict=True)]
    assert sum(errors) / len(errors) == pytest.approx(result["error"], rel=1e-3)

    assert main(["evaluate", f"run={directory}", "--config-dir", str(folder)]) == 0
    assert "error in degrees" in capsys.readouterr().out.lower()

    import angles

    image = tmp_path / "line.png"
    angles.line(70).save(image)
    answers = clipadapt.load(directory, config_dir=folder).predict([image, angles.line(20)])
    assert answers[0] > answers[1]
    with pytest.raises(clipadapt.UserError, match="no probabilities"):
        clipadapt.load(directory, config_dir=folder).predict_proba(image)
    assert main(["predict", f"run={directory}", f"images={image}", "format=json", "--config-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["answer"] == pytest.approx(answers[0], abs=1e-3)


def test_a_run_of_another_kind_asks_for_its_folder(folder, tmp_path):
    task = clipadapt.load_task("lines", shots=8, kind="angle", config_dir=folder)
    assert len(task.support) == 8 and len(task.validation) == 4
    backbone = clipadapt.load_backbone("tiny")
    result = clipadapt.finetune(backbone, task, "zero_shot", config_dir=folder, cpu=True, workers=0)
    directory = result.save(tmp_path / "run")
    with pytest.raises(clipadapt.UserError, match="config_dir"):
        clipadapt.load(directory)
