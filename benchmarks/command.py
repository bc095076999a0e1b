"""What every benchmark's command has: the backbone, where it runs, and in which number format."""

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
    """The options that all commands share."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--backbone", default="ViT-B-16", help="a name of open_clip's, or tiny; its weights are random")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--precision", choices=list(DTYPES), default="fp32")
    made.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    return made


def add_repeats(made: argparse.ArgumentParser) -> None:
    """How often each side is timed."""
    made.add_argument("--repeats", type=int, default=5, help="of which the median is taken")


def add_classes(made: argparse.ArgumentParser, classes: Sequence[int], plain: int) -> None:
    """Numbers of classes, and how many the plain side gets at the most."""
    made.add_argument("--classes", type=int, nargs="+", default=list(classes))
    made.add_argument("--plain-classes", type=int, default=plain, help="beyond it the plain side is scaled linearly")


def load(chosen: argparse.Namespace) -> CLIP:
    """The backbone with random weights, on its device, in its number format."""
    return CLIP.load(chosen.backbone, None).to(chosen.device, DTYPES[chosen.precision])


def autocast(clip: CLIP) -> torch.autocast:
    """Number formats of a forward pass, as in a run of this precision."""
    return torch.autocast(clip.device.type, torch.bfloat16, enabled=clip.dtype == torch.bfloat16)


def pixels(clip: CLIP, *leading: int) -> Tensor:
    """Random pixels `[*leading, 3, height, width]`, the same each time they are asked for."""
    shape = *leading, 3, *clip.image_size
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(clip.device, clip.dtype)


def task(names: Sequence[str], template: str = "{}") -> SimpleNamespace:
    """What an adaptation may know."""
    return SimpleNamespace(class_names=list(names), templates=[template])


def class_names(count: int) -> list[str]:
    """The first of ImageNet's class names; beyond their thousand, the same names numbered."""
    known = len(IMAGENET_CLASSNAMES)
    return [IMAGENET_CLASSNAMES[i % known] + (f" {i // known}" if i >= known else "") for i in range(count)]


def scaled(measured: int, count: int) -> str | None:
    """In words, what the plain side was measured with; None where that was all."""
    return None if measured == count else f"{measured:,} classes"
