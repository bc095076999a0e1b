"""The result of a run, and the run directory that it is saved in and read from."""

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
from clipadapt.files import as_write_error
from clipadapt.objectives.base import Objective
from clipadapt.report import summary
from clipadapt.runs.directory import PICTURES, RunDirectory
from clipadapt.runs.plan import Plan
from clipadapt.runs.reading import RunReader


@dataclass(frozen=True)
class Result:
    """The result of a run: metrics, history, settings, record and learned tensors.

    Attributes:
        metrics: `accuracy`, `zero_shot_accuracy` and `calibration_error` as fractions of the test set, and `per_class`,
            where there is one; `tests`, learned `parameters` and their `share` of the backbone, `seconds`,
            `peak_memory_mb`, `processes`; a `schedule_note` to show beside them, or None.
        history: loss, training accuracy and learning rate of each epoch.
        config: the settings of the run.
        record: task, with its pseudo-labels if it has any and the broken images `left_out` of it; backbone, plan and
            versions.
        tensors: learned tensors by name.
        files: contents of further files by their paths in the run directory, such as adapters in peft's format.
    """

    metrics: dict[str, Any]
    history: list[dict[str, float]]
    config: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes] = field(default_factory=dict)

    def save(self, directory: str | Path) -> Path:
        """Write the run directory and return its path; `clipadapt.load` and the command line read it.

        A finished run that is there stays whole until this one, written beside it, takes its place.

        Raises:
            UserError: the directory holds something else.
        """
        target = RunDirectory(directory)
        with as_write_error(target.path):
            target.restore()
        target.open(self.config, configuration.identity)
        if target.finished:
            fresh = target.beside()
            fresh.remove()
            self.save(fresh.path)
            with as_write_error(target.path):
                target.replace_by(fresh)
            return target.path
        names = unique_names(self.record["class_names"])
        summary.draw_pictures(self.metrics, self.history, names, target.path / PICTURES)
        target.finish(self.tensors, self.record, self.history, self.metrics, self.files)
        return target.path


def make_record(prepared: Run, planned: Plan, objective: Objective) -> dict[str, Any]:
    """Return a run's record, as of `Result`."""
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
        "fingerprint": task.fingerprint,
        "left_out": task.left_out,
        "pseudo_labels": asdict(prepared.pseudo_labels) if prepared.pseudo_labels else None,
        "support_shape": prepared.known.support_shape,
        "backbone": {**clip.source, "fingerprint": clip.fingerprint},
        "teachers": [{**teacher.source, "fingerprint": teacher.fingerprint} for teacher in objective.teachers],
        "plan": asdict(planned),
        "device": str(prepared.accelerator.device),
        "versions": {
            "clipadapt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def read_result(directory: str | Path) -> Result:
    """Read the result of a finished run from its directory.

    Raises:
        UserError: no run is there, it isn't finished, or a file of it is damaged.
    """
    source = RunReader(directory)
    source.check_files()
    metrics = source.result()
    return Result(metrics, source.history(), source.config(), source.record(), source.tensors())
