"""What a run yielded: kept in its directory, and read from there."""

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from clipadapt import __version__
from clipadapt import config as configuration
from clipadapt.data.tasks import unique_names
from clipadapt.engine.run import Run
from clipadapt.objectives.base import Objective
from clipadapt.report import summary
from clipadapt.runs.directory import PICTURES, RunDirectory
from clipadapt.runs.plan import Plan


@dataclass(frozen=True)
class Result:
    """What a run yielded.

    Attributes:
        metrics: `accuracy`, `zero_shot_accuracy` and `calibration_error` as fractions of the test set, and `per_class`,
            where there is one; `tests`, learned `parameters` and their `share` of the backbone, `seconds`,
            `peak_memory_mb`, `processes`; a `schedule_note` that belongs beside them, or None.
        history: loss, training accuracy and learning rate of each epoch.
        config: the settings of the run.
        record: task with the labels it was given in place of its own, if any, and the broken images `left_out` of it,
            backbone, plan and versions.
        tensors: what was learned, by name.
        files: what was learned as other tools read it, by path in the run directory.
    """

    metrics: dict[str, Any]
    history: list[dict[str, float]]
    config: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes] = field(default_factory=dict)

    def save(self, directory: str | Path) -> Path:
        """Write the run directory, for `clipadapt.load` and the command line.

        Raises:
            UserError: the directory holds something else.
        """
        target = RunDirectory(directory)
        target.open(self.config, configuration.identity)
        names = unique_names(self.record["class_names"])
        summary.pictures(self.metrics, self.history, names, target.path / PICTURES)
        target.finish(self.tensors, self.record, self.history, self.metrics, self.files)
        return target.path


def make_record(prepared: Run, told: Plan, objective: Objective) -> dict[str, Any]:
    """What is kept of a run beside its figures: see `Result`."""
    task, clip = prepared.task, prepared.clip
    packages = ("torch", "open_clip_torch", "accelerate", "torchmetrics", "hydra-core", "peft")
    return {
        "task": task.name,
        "class_names": task.class_names,
        "templates": task.templates,
        "shots": task.shots,
        "seed": task.seed,
        "classes": task.classes,
        "support_indices": task.support_indices,
        "validation_indices": task.validation_indices,
        "images": task.images,
        "left_out": task.left_out,
        "pseudo_labels": asdict(prepared.pseudo_labels) if prepared.pseudo_labels else None,
        "support_shape": prepared.known.support_shape,
        "backbone": {**clip.source, "fingerprint": clip.fingerprint},
        "teachers": [{**teacher.source, "fingerprint": teacher.fingerprint} for teacher in objective.teachers],
        "plan": asdict(told),
        "device": str(prepared.accelerator.device),
        "versions": {
            "clipadapt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def read_result(directory: str | Path) -> Result:
    """A finished run, read from its directory.

    Raises:
        UserError: no run is there, or one that isn't finished.
    """
    source = RunDirectory(directory)
    metrics = source.result()
    return Result(metrics, source.history(), source.config(), source.record(), source.tensors())
