"""What the tests share: the golden tiny CLIP, a small task, images."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from clipadapt import config
from clipadapt.adaptations import Adaptation
from clipadapt.backbone.open_clip import CLIP
from clipadapt.interfaces import LabelledFeatures
from clipadapt.runs.methods import adaptation_maker
from tests.golden.quantities import tiny

CLASS_NAMES = ["cat", "golden retriever", "tree_frog", "T-shirt", "aeroplane"]
TEMPLATES = ["a photo of a {}.", "a drawing of the {}."]


def task_on(device: str = "cpu") -> Any:
    """Five classes, with features of two views of two images each."""
    image = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(2)).to(device)
    support = LabelledFeatures(image, torch.arange(10, device=device) % len(CLASS_NAMES))
    return SimpleNamespace(class_names=CLASS_NAMES, templates=TEMPLATES, words={}, support=support)


TASK = task_on()


@cache
def golden(device: str = "cpu", dtype: torch.dtype = torch.float32) -> CLIP:
    """The tiny CLIP of the golden records, one for all tests."""
    return tiny(0, device).to(device, dtype)


def images(count: int, size: int = 32) -> Tensor:
    """Pixels `[count, 3, size, size]`, always the same."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def needed(method: str, classes: Sequence[str]) -> list[str]:
    """Settings that a method's YAML leaves to users."""
    key = NEEDED.get(method)
    texts = {name: [f"a {name}", "four legs", "often seen"][: 1 + number % 3] for number, name in enumerate(classes)}
    return [] if key is None else [config.setting(f"method.adaptation.{key}", texts)]


NEEDED = {name: "sentences" for name in ("cupl", "class_sentences")}
NEEDED |= {name: "descriptions" for name in ("vcd", "class_descriptions")}
"""By method or adaptation, the setting that its YAML leaves to users."""


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """Composed settings, which tests that ask for the same share: nobody may change them."""
    return config.compose(overrides)


def adaptation(name: str, *overrides: str, device: str = "cpu", task: Any = None) -> Adaptation:
    """An adaptation as composed from conf/adaptation and overrides, on the golden CLIP."""
    given = any(f".{NEEDED.get(name)}=" in text for text in overrides)
    usual = [] if given else needed(name, [*(task or TASK).class_names, "dog", "owl"])
    settings = composed("method=zero_shot", f"adaptation@method.adaptation={name}", *usual, *overrides)
    torch.manual_seed(0)
    return adaptation_maker(settings)(golden(device), task or task_on(device)).to(device)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to rounding, relative to the largest of the expected values."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
