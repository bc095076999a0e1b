"""A family of backbones of a user's own: one file and one YAML, and nothing changed in the package."""

import sys
from pathlib import Path

import pytest
import torch

import clipadapt
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.cli import main
from clipadapt.errors import UserError

FOLDER = Path(__file__).parent.parent / "own_backbone"
DATA = {"train_per_class": 3, "validation_per_class": 1, "test_images": 12}


@pytest.fixture
def backbone(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield clipadapt.load_backbone("mlp_pair", config_dir=FOLDER, width=24)
    sys.modules.pop("mlp_pair", None)


def test_it_is_one_short_file():
    assert len((FOLDER / "mlp_pair.py").read_text().splitlines()) < 100


def test_it_is_built_from_its_yaml(backbone):
    assert isinstance(backbone, DualEncoder)
    assert backbone.source == {"_target_": "mlp_pair.MLPPair", "name": "mlp_pair", "width": 24, "seed": 0}
    assert backbone.width == 24 and backbone.logit_bias is None
    assert backbone.another(seed=1).fingerprint != backbone.another().fingerprint == backbone.fingerprint


@pytest.mark.parametrize(
    "method",
    ["clip_adapter", *(pytest.param(name, marks=pytest.mark.slow) for name in ("zero_shot", "visual_prompting"))],
)
def test_a_method_is_fitted_saved_loaded_and_predicts(backbone, method, tmp_path):
    task = clipadapt.load_task("drawn", shots=1, **DATA)
    overrides = ["method.adaptation.size=2"] if method == "visual_prompting" else []
    options = {"cpu": True, "workers": 0, "epochs": 1}
    result = clipadapt.finetune(backbone, task, method, overrides, config_dir=FOLDER, **options)
    assert result.metrics["accuracy"] >= 0 and bool(result.tensors) == (method != "zero_shot")
    assert result.record["backbone"]["_target_"] == "mlp_pair.MLPPair"
    result.save(tmp_path / "run")
    classifier = clipadapt.load(tmp_path / "run", config_dir=FOLDER)
    probabilities = classifier.predict_proba([image for image, _ in list(task.support)[:3]])
    assert probabilities.shape == (3, len(task.class_names))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    with pytest.raises(UserError, match=r"mlp_pair\.MLPPair is not allowed.*--config-dir"):
        clipadapt.load(tmp_path / "run")


def test_the_command_line_takes_it_and_checks_its_settings(backbone, tmp_path, capsys):
    words = ["--config-dir", str(FOLDER), "backbone=mlp_pair", "method=zero_shot", "data=drawn", "shots=1"]
    words += [*(f"data.{key}={value}" for key, value in DATA.items()), "engine.workers=0", "engine.cpu=true"]
    assert main([*words, f"output={tmp_path}"]) == 0
    (found,) = tmp_path.rglob("result.json")
    assert found.parent.parent.parent.name == "mlp_pair"
    capsys.readouterr()
    assert main([*words, f"output={tmp_path}", "backbone.width=wide", "+backbone.depth=2"]) == 2
    said = capsys.readouterr().err
    assert "backbone.width=wide" in said and "there is no key backbone.depth" in said


def test_what_it_has_no_point_for_is_refused(backbone):
    task = clipadapt.load_task("drawn", shots=1, **DATA)
    with pytest.raises(
        UserError, match=r"text tower has no point 'words'.*methods that work with this backbone: .*zero_shot"
    ):
        clipadapt.finetune(backbone, task, "coop", cpu=True, workers=0)
