"""The result of a run, and the run directory that it is saved in and read from."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipadapt import __version__
from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.inputs import Picture
from clipadapt.data.tasks import unique_names
from clipadapt.engine.run import Run
from clipadapt.errors import UserError
from clipadapt.files import as_write_error
from clipadapt.notebook import html_table
from clipadapt.objectives.base import Objective
from clipadapt.report import summary, tables
from clipadapt.runs.artifact import ArtifactReader, is_artifact
from clipadapt.runs.directory import PICTURES, RunDirectory
from clipadapt.runs.metrics import Metrics
from clipadapt.runs.plan import Plan
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.reading import RunReader


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run: metrics, history, settings, record and learned tensors.

    Attributes:
        metrics: `accuracy`, `zero_shot_accuracy` and `calibration_error` as fractions of the test set, and `per_class`,
            where there is one; `tests`, learned `parameters` and their `share` of the backbone, `seconds`,
            `peak_memory_mb`, `processes`; a `schedule_note` to show beside them, or None; the `cross_validation`, if
            there was one: no figures of a test, but of images of the support set that fits to folds have held out.
        history: loss, training accuracy and learning rate of each epoch.
        config: the settings of the run.
        record: task, with its pseudo-labels if it has any and the broken images `left_out` of it; backbone, plan and
            versions.
        tensors: learned tensors by name.
        files: contents of further files by their paths in the run directory, such as adapters in peft's format.
        clip: the backbone, which answers to further images; None if the result was read from files.
    """

    metrics: dict[str, Any]
    history: list[dict[str, float]]
    config: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes] = field(default_factory=dict)
    clip: DualEncoder | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Let the metrics say what is wrong where one is asked for that isn't there."""
        object.__setattr__(self, "metrics", Metrics(self.metrics))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the backbone."""
        return {name: value for name, value in vars(self).items() if name != "predictor"} | {"clip": None}

    def __repr__(self) -> str:
        """Return what was run, and its leading figure."""
        figures = "; ".join(f"{title}: {after}, zero-shot {before}" for title, before, after in self._figures()[:1])
        return f"<Result of {self._title()}: {figures or 'no test images'}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows = self._figures() or [("test images", "", "none")]
        size = tables.parameters_text(self.metrics["parameters"], self.metrics["share"])
        held_out = self.metrics.get("cross_validation")
        rows += [] if held_out is None else [_cross_validated_row(held_out)]
        costs = [("learned parameters", "", size), ("time", "", tables.seconds_text(self.metrics["seconds"]))]
        return html_table(self._title(), [*rows, *costs], ("", "zero-shot", "adapted"))

    def _title(self) -> str:
        return f"{self.config['method']['name']} on {self.record['task']} with {self.record['backbone']['name']}"

    def _figures(self) -> list[tuple[str, str, str]]:
        """Return title, zero-shot and adapted figure on the first test set as text, the leading one first."""
        figures = self.metrics.get("figures", {}) if self.metrics["tests"] else {}
        return [
            (figure["title"], *(tables.figure_text(self.metrics[key], figure) for key in (f"zero_shot_{name}", name)))
            for name, figure in figures.items()
        ]

    @cached_property
    def predictor(self) -> Predictor:
        """Return the predictor of this result on its backbone; a method's state goes on from call to call.

        Raises:
            UserError: the backbone isn't at hand, or is rounded to another number format by now.
        """
        from clipadapt.runs.learned import learned_from  # needs this module

        if self.clip is None or self.clip.dtype != torch.float32:
            why = "this result has no backbone" if self.clip is None else f"its backbone is in {self.clip.dtype} by now"
            raise UserError(f"{why}: clipadapt.load(result.save('a_folder')) loads one that predicts")
        return learned_from(self, self.config, self.clip).predictor()

    def predict(
        self, images: Picture | Iterable[Picture], reject: float | None = None, threshold: float | None = None
    ) -> list[Any]:
        """Return the prediction for each image, such as its class name; arguments and errors as of `Predictor.predict`.

        Raises:
            UserError: as of `predictor`, too.
        """
        return self.predictor.predict(images, reject, threshold)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write an artifact for others; arguments and errors as of `Predictor.save_pretrained`, and of `predictor`."""
        return self.predictor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Write an artifact to the Hugging Face hub; as `Predictor.push_to_hub`, with the errors of `predictor`."""
        return self.predictor.push_to_hub(repo_id, **options)

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


def _cross_validated_row(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the leading figure of a cross-validation for a notebook: title, zero-shot and adapted."""
    name, figure = next(iter(found["figures"].items()))
    before, after = (tables.figure_text(found["scores"][key], figure) for key in (f"zero_shot_{name}", name))
    return f"{figure['title']}, cross-validated over the support set ({found['folds']} folds)", before, after


def make_record(prepared: Run, planned: Plan, objective: Objective) -> dict[str, Any]:
    """Return a run's record, as of `Result`."""
    task, clip, at_test_time = prepared.task, prepared.clip, prepared.test_time
    teachers = [*objective.teachers, *(() if at_test_time is None else at_test_time.teachers)]
    packages = ("torch", "open_clip_torch", "accelerate", "torchmetrics", "hydra-core", "peft")
    return {
        "task": task.name,
        "class_names": task.class_names,
        "words": task.words,
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
        "teachers": [{**teacher.source, "fingerprint": teacher.fingerprint} for teacher in teachers],
        "plan": asdict(planned),
        "device": str(prepared.accelerator.device),
        "versions": {
            "clipadapt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def read_result(directory: str | Path) -> Result:
    """Read the result of a finished run from its directory, or what an artifact holds of it.

    Raises:
        UserError: no run is there, it isn't finished, or a file of it is damaged.
    """
    source = ArtifactReader(directory) if is_artifact(directory) else RunReader(directory)
    source.check_files()
    metrics = source.result()
    return Result(metrics, source.history(), source.config(), source.record(), source.tensors())
