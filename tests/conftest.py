"""Options and fixtures of all tests."""

import copy
import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run in several processes, which share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import open_clip  # imports torch, which reads that variable then
import torch

from clipadapt.backbone import tiny
from clipadapt.backbone.open_clip import CLIP
from clipadapt.report import pictures

RENDER = pictures.render


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--records", default=None, help="folder of golden records to check instead of tests/golden/records"
    )


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs keep goes to a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPADAPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def weights_read_once() -> Iterator[None]:
    """The embedded backbone's weights, whose unseen embeddings take long to draw, and the tokenizer are made once."""
    weights = tiny.weights()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "weights", lambda: dict(weights))  # loading copies the tensors
        patch.setattr(open_clip, "SimpleTokenizer", cache(open_clip.SimpleTokenizer))
        yield


@pytest.fixture(autouse=True, scope="session")
def yaml_parsed_once() -> Iterator[None]:
    """Each text of YAML is parsed once: composing reads the same files again and again."""
    load, parsed = OmegaConf.load, dict[str, Any]()

    def load_once(file: Any) -> Any:
        text = file.read() if hasattr(file, "read") else Path(file).read_text(encoding="utf-8")
        if text not in parsed:
            parsed[text] = load(io.StringIO(text))
        return copy.deepcopy(parsed[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", load_once)
        yield


@pytest.fixture(autouse=True, scope="session")
def unrendered_pictures() -> Iterator[None]:
    """Pictures of runs are made, and not rendered, which takes half of a small run's time; `rendered` renders them."""
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "PNG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "render", lambda figure: content.getvalue())
        yield


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render the pictures of a test."""
    monkeypatch.setattr(pictures, "render", RENDER)


@pytest.fixture(scope="session")
def clip() -> CLIP:
    """The embedded backbone."""
    return CLIP.load("tiny", "embedded")


LONG = ("second_device", "contracts", "config", "golden", "processes", "packaging", "tiny", "main", "documentation")
"""Files that take longest: they come first, so that the processes of a run end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONG)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))
