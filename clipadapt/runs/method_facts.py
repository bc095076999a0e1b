"""What a method needs, when it adapts, what it changes and how many numbers it learns, as its parts say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.model import AdaptedCLIP
from clipadapt.runs.methods import adaptation_maker, build_test_time, objective_class, placeholder_task
from clipadapt.test_time.base import TestTimeMethod

LABELS, IMAGES, NAMES = "labelled images", "images without labels", "class names alone"
BEFORE, EACH, BATCH = "before use", "to each test image", "to each batch of test images"
STREAM, SET = "along the stream of test images", "to all test images"
NEEDS, TIMES = (NAMES, LABELS, IMAGES), (BEFORE, EACH, BATCH, STREAM, SET)
CLASSES, IMAGES_A_CLASS = 10, 16
"""Classes and images of each for which learned numbers are counted."""


@dataclass(frozen=True)
class MethodFacts:
    """What is to be known of a method before it is taken.

    Attributes:
        needs: what it learns from.
        when: when it adapts.
        changes: which towers it changes, or the features after them.
        numbers: how many numbers it learns.
        other_classes: whether classes can be named that it hasn't learned.
        extras: what it needs beside that.
    """

    needs: str
    when: str
    changes: str
    numbers: int
    other_classes: bool
    extras: tuple[str, ...]


@torch.no_grad()
def find_facts(clip: DualEncoder, method: str, config_dir: str | Path | None = None) -> MethodFacts:
    """Return the facts of a method on a backbone, as its YAML stands; nothing is composed, and no image is read.

    Args:
        clip: the backbone.
        method: its name.
        config_dir: a folder of the user's own with YAML files and modules.

    Raises:
        UserError: it can't be built, as when a setting is the user's to give.
    """
    found = configuration.read_method(method, config_dir)
    if not found["method"].get("adaptation"):
        raise UserError(f"the method {method} has no adaptation")
    empty: dict[str, Any] = {"also": {}, "test_time": None, "pseudo_labels": None, "objective": None}
    config: dict[str, Any] = {
        "method": empty | found["method"],
        "allowed_targets": configuration.own_modules(config_dir),
    }
    names = [f"class {place}" for place in range(CLASSES)]
    task = placeholder_task(clip, names, ["a photo of a {}."], (1, CLASSES * IMAGES_A_CLASS, clip.width or 0))
    adaptation, test_time = adaptation_maker(config)(clip, task), build_test_time(config)
    capabilities = adaptation.capabilities
    return MethodFacts(
        needs=what_it_needs(adaptation, config["method"]["pseudo_labels"], found["engine"].get("epochs")),
        when=when_it_adapts(test_time),
        changes=what_it_changes(AdaptedCLIP(clip, adaptation)),
        numbers=sum(value.numel() for value in adaptation.parameters()) + capabilities.num_fitted_values,
        other_classes=capabilities.serves_others,
        extras=tuple(extras(adaptation, config, test_time)),
    )


def what_it_needs(adaptation: Adaptation, pseudo_labels: str | None, epochs: Any) -> str:
    """Return what a method learns from."""
    if pseudo_labels is not None:
        return IMAGES
    capabilities = adaptation.capabilities
    kept = capabilities.num_fitted_values or capabilities.needs_validation
    own = capabilities.fixed_classes is not None and not adaptation.has_parameters
    return LABELS if kept or own or (epochs != 0 and adaptation.has_parameters) else NAMES


def when_it_adapts(test_time: TestTimeMethod | None) -> str:
    """Return when a method adapts."""
    if test_time is None:
        return BEFORE
    return {"image": EACH, "batch": BATCH, "stream": STREAM, "set": SET}[test_time.adapts_to]


def what_it_changes(model: AdaptedCLIP) -> str:
    """Return which towers an adaptation changes, by their cuts."""
    changed = [tower for tower, cut in (("image", model.image_cut), ("text", model.text_cut)) if cut != "features"]
    return "both towers" if len(changed) == 2 else f"{changed[0]} tower" if changed else "features"


def extras(adaptation: Adaptation, config: dict[str, Any], test_time: TestTimeMethod | None) -> list[str]:
    """Return what a method needs beside images and names."""
    objective = config["method"]["objective"]
    teachers = objective is not None and objective_class(config).teachers_for(objective)
    needed = {
        "validation images": adaptation.capabilities.needs_validation,
        "a second backbone": bool(teachers or (test_time is not None and test_time.teacher_specs)),
    }
    return [what for what, is_needed in needed.items() if is_needed]
