"""The classes and functions that may be built at each place of the settings."""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import yaml

from clipadapt.config.tree import conf_dir
from clipadapt.plain_yaml import Loader


@dataclass(frozen=True)
class Group:
    """Group of the targets that may stand at one place of the settings.

    Attributes:
        noun: The kind of object, for messages.
        room: The package whose modules define the targets; the user's own modules may define more.
        base: The base class of the targets, or its dotted name.
        itself: Whether `base` itself is a target, too.
        functions: Dotted names of functions of the package that are targets.
        options: The folder in `conf` whose files name further such functions.
        arguments: The number of positional arguments, before the keys of the settings.
        waits: Whether the settings make a partial function of these arguments, with `_partial_: true`.
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
        """Return the base class of the targets; its module is imported only here."""
        if isinstance(self.base, type):
            return self.base
        module, _, name = self.base.rpartition(".")
        found: type = getattr(importlib.import_module(module), name)
        return found

    @property
    def known_functions(self) -> frozenset[str]:
        """Return the dotted names of the package's functions that are targets."""
        named = frozenset() if self.options is None else targets_in(self.options)
        return named | {*self.functions}

    @property
    def takes_functions(self) -> bool:
        """Return whether a target may be a function."""
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
"""Groups by dotted key of a run's settings; `corruption` is for a corrupted test set."""


def group_at(path: str) -> Group | None:
    """Return the group of targets at a dotted path of the settings; None if nothing may be built there."""
    parent, _, _ = path.rpartition(".")
    return ADAPTATION if parent == "method.also" else GROUPS.get(path)


@functools.cache
def targets_in(options: str) -> frozenset[str]:
    """Return the targets in the package's own files of a folder in `conf`."""
    tables: list[Any] = [
        yaml.load(path.read_text("utf-8"), Loader=Loader) for path in (conf_dir() / options).glob("*.yaml")
    ]
    return frozenset(table["_target_"] for table in tables if "_target_" in table)
