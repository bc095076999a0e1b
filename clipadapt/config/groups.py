"""What may be built, by its place in the settings: the classes or functions of a part of a method, and no others."""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import yaml

from clipadapt.config.tree import conf_dir
from clipadapt.plain_yaml import Loader


@dataclass(frozen=True)
class Group:
    """What a `_target_` at one place of the settings may name.

    Attributes:
        noun: What it is, in messages.
        room: The package whose modules have it; modules of a user's own may have more.
        base: The class that its classes derive from, or its dotted name.
        itself: Whether `base` may be named, too.
        functions: The functions of the room that may be named, by their dotted names.
        options: The folder in `conf` whose files name such functions, too.
        arguments: The number of arguments that are given by place, before the keys of the settings.
        waits: Whether the settings give a function that waits for these arguments, as `_partial_: true` says.
    """

    noun: str
    room: str
    base: str | type
    itself: bool = False
    functions: tuple[str, ...] = ()
    options: str | None = None
    arguments: int = 0
    waits: bool = False

    @property
    def base_class(self) -> type:
        """Return the class that its classes derive from; its module is imported here, not with the settings."""
        if isinstance(self.base, type):
            return self.base
        module, _, name = self.base.rpartition(".")
        found: type = getattr(importlib.import_module(module), name)
        return found

    @property
    def known_functions(self) -> frozenset[str]:
        """Return the dotted names of the room's functions that may be named."""
        named = frozenset() if self.options is None else targets_in(self.options)
        return named | {*self.functions}

    @property
    def takes_functions(self) -> bool:
        """Return whether a function may stand in place of a class."""
        return bool(self.functions or self.options)


ADAPTATION = Group("an adaptation", "clipadapt.adaptations", "clipadapt.adaptations.base.Adaptation", arguments=2)
GROUPS = {
    "backbone": Group(
        "a backbone", "clipadapt.backbone", "clipadapt.backbone.dual_encoder.DualEncoder", options="backbone"
    ),
    "method.adaptation": ADAPTATION,
    "method.objective": Group(
        "an objective", "clipadapt.objectives", "clipadapt.objectives.base.Objective", arguments=2
    ),
    "method.gradient_rule": Group("a gradient rule", "clipadapt.objectives", "clipadapt.objectives.base.GradientRule"),
    "method.average": Group("a weight average", "clipadapt.objectives", "clipadapt.objectives.base.WeightAverage"),
    "method.test_time": Group("a test-time method", "clipadapt.test_time", "clipadapt.test_time.base.TestTimeMethod"),
    "kind": Group("a kind of task", "clipadapt.tasks", "clipadapt.tasks.base.TaskKind"),
    "engine": Group("a table of settings", "clipadapt.engine", "clipadapt.engine.settings.Settings", itself=True),
    "engine.optimizer": Group("an optimizer", "torch.optim", "torch.optim.Optimizer", arguments=1, waits=True),
    "engine.schedule": Group(
        "a schedule of learning rates",
        "clipadapt.engine.schedules",
        "torch.optim.lr_scheduler.LRScheduler",
        options="schedule",
        arguments=2,
        waits=True,
    ),
    "data": Group("a source of images", "clipadapt.data", "clipadapt.data.tasks.Source", options="data"),
    "corruption": Group(
        "a corruption",
        "clipadapt.data.corruptions",
        "clipadapt.data.tasks.Split",
        functions=("clipadapt.data.corruptions.corrupted",),
        arguments=1,
    ),
}
"""By place: dotted keys of a run's settings, and `corruption` for a further test set's."""


def group_at(path: str) -> Group | None:
    """Return what may be built at a dotted path of the settings; None where nothing may."""
    parent, _, _ = path.rpartition(".")
    return ADAPTATION if parent == "method.also" else GROUPS.get(path)


@functools.cache
def targets_in(options: str) -> frozenset[str]:
    """Return what the package's own files of a folder in `conf` name as their targets."""
    tables: list[Any] = [
        yaml.load(path.read_text("utf-8"), Loader=Loader) for path in (conf_dir() / options).glob("*.yaml")
    ]
    return frozenset(table["_target_"] for table in tables if "_target_" in table)
