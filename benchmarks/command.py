"""Options and inputs that all benchmarks share: the backbone, its device and its number format."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from clipadapt.backbone.open_clip import CLIP

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--backbone", default="ViT-B-16", help="a name of open_clip's, or tiny; its weights are random")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--precision", choices=list(DTYPES), default="fp32")
    made.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    return made


def add_repeats(made: argparse.ArgumentParser) -> None:
    """Add the option for the number of repeats of each side."""
    made.add_argument("--repeats", type=int, default=5, help="number of timings, of which the median is taken")


def add_classes(made: argparse.ArgumentParser, classes: Sequence[int], plain: int) -> None:
    """Add options for the numbers of classes, and the largest number on the plain side."""
    made.add_argument("--classes", type=int, nargs="+", default=list(classes))
    made.add_argument(
        "--plain-classes",
        type=int,
        default=plain,
        help="the most that the plain side is measured with; beyond it, its figure is scaled linearly",
    )


def load(chosen: argparse.Namespace) -> CLIP:
    """Load the backbone with random weights, on its device, in its number format."""
    return CLIP.load(chosen.backbone, None).to(chosen.device, DTYPES[chosen.precision])


def autocast(clip: CLIP) -> torch.autocast:
    """Return the autocast context of a forward pass, as in a run of this precision."""
    return torch.autocast(clip.device.type, torch.bfloat16, enabled=clip.dtype == torch.bfloat16)


def pixels(clip: CLIP, *leading: int) -> Tensor:
    """Return random pixels `[*leading, 3, height, width]`, the same in every call."""
    shape = *leading, 3, *clip.image_size
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(clip.device, clip.dtype)


def task(names: Sequence[str], template: str = "{}") -> SimpleNamespace:
    """Return the part of a task that an adaptation may read."""
    return SimpleNamespace(class_names=list(names), templates=[template], words={})


def class_names(count: int) -> list[str]:
    """Return the first of ImageNet's class names; beyond the thousand, the same names numbered."""
    known = len(IMAGENET_CLASSNAMES)
    return [IMAGENET_CLASSNAMES[i % known] + (f" {i // known}" if i >= known else "") for i in range(count)]


def scaled(measured: int, count: int) -> str | None:
    """Return what the plain side was measured with, in words; None if with all classes."""
    return None if measured == count else f"{measured:,} classes"
