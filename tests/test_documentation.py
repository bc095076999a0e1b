"""What the documentation shows, run as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from clipadapt.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "adding_a_method.md"
BLOCK = re.compile(r"`mine/(\S+)`:\n\n```(?:yaml|python)\n(.*?)```", re.DOTALL)
DATA = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=1"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    for name, text in BLOCK.findall(PAGE.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    yield folder
    sys.modules.pop("rotation", None)


@pytest.mark.parametrize("method", ["steady_context", "rotation"])
def test_the_methods_of_the_page_run(method, mine, tmp_path):
    words = ["--config-dir", str(mine), f"method={method}", *DATA, "engine.workers=0", "engine.cpu=true"]
    assert main([*words, f"output={tmp_path / 'outputs'}"]) == 0
    assert len([*tmp_path.rglob("result.json")]) == 1


def test_the_worked_example_is_short():
    texts = dict(BLOCK.findall(PAGE.read_text()))
    lines = texts["rotation.py"] + texts["method/rotation.yaml"]
    assert len(lines.splitlines()) < 60
