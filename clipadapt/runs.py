"""One run from composed settings to its directory, and back from the directory to what it learned."""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from clipadapt import __version__
from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation, Composed
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier
from clipadapt.console import first_process
from clipadapt.data.tasks import Task, make_task
from clipadapt.engine.fit import Diverged, Progress
from clipadapt.engine.measure import measure
from clipadapt.engine.memory import peak_memory_mb
from clipadapt.engine.run import Plan, Run
from clipadapt.engine.run_directory import RunDirectory
from clipadapt.errors import UserError
from clipadapt.report import progress as bars
from clipadapt.report import summary

SELECTION = "none: the last epoch"


@dataclass(frozen=True)
class Result:
    """What a run yielded.

    Attributes:
        metrics: `accuracy`, `zero_shot_accuracy` and `calibration_error` as fractions of the test set; `per_class`,
            `tests`, learned `parameters` and their `share` of the backbone, `seconds`, `peak_memory_mb`, `processes`.
        history: loss, training accuracy and learning rate of each epoch.
        config: the settings of the run.
        record: task, backbone, plan and versions.
        tensors: what was learned, by name.
    """

    metrics: dict[str, Any]
    history: list[dict[str, float]]
    config: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]

    def save(self, directory: str | Path) -> Path:
        """Write the run directory, for `clipadapt.load` and the command line.

        Raises:
            UserError: the directory holds something else.
        """
        target = RunDirectory(directory)
        target.open(self.config, configuration.identity)
        summary.pictures(self.metrics, self.history, self.record["class_names"], target.path / "pictures")
        target.finish(self.tensors, self.record, self.history, self.metrics)
        return target.path


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that composed settings describe."""
    node = config["data"]
    if "_target_" not in node:
        raise UserError(f"the task '{node['name']}' was made by hand and can't be loaded again: say which data to use")
    plain = {key: value for key, value in node.items() if key != "views"}
    source = configuration.build(plain, allowed=config["allowed_targets"])
    return replace(make_task(source, config["shots"], config["seed"], node["views"]), origin=dict(node))


def carry_out(config: dict[str, Any], clip: CLIP, task: Task, target: RunDirectory | None, console: Console) -> Result:
    """Zero-shot, fit and evaluation, with what is said of them; kept in a directory, if there is one.

    Raises:
        UserError: an adaptation that doesn't fit the backbone or the task, a loss that isn't finite.
    """
    began = time.monotonic()
    allowed = config["allowed_targets"]
    settings = configuration.build(config["engine"], allowed=allowed)
    objective = configuration.build(config["method"]["objective"], allowed=allowed)
    console = console if first_process() else Console(quiet=True)
    prepared = Run.prepare(clip, task, adaptation_maker(config), settings, partial(bars.images, console))
    plan = prepared.plan()
    summary.show_plan(console, task, asdict(plan))
    progress = _begin(prepared, config, target)
    source = prepared.support()
    with bars.epochs(console, progress.epoch, prepared.epochs) as advance:
        after = _after_epoch(target, settings.checkpoint_seconds, advance)
        try:
            prepared.fit(objective, source, progress, after)
        except Diverged as error:
            raise _diverged(error, progress, target) from None
    metrics = measure(prepared) | {
        "parameters": plan.parameters,
        "share": plan.share,
        "fit_seconds": progress.seconds,
        "seconds": time.monotonic() - began,
        "peak_memory_mb": peak_memory_mb(prepared.accelerator.device),
        "processes": prepared.accelerator.num_processes,
        "selection": SELECTION,
    }
    tensors = {name: value.detach().cpu() for name, value in prepared.classifier.adaptation.state_dict().items()}
    result = Result(metrics, progress.history, config, _record(prepared, plan), tensors)
    if target is not None and first_process():
        result.save(target.path)
    prepared.accelerator.wait_for_everyone()
    summary.show_result(console, metrics)
    if target is not None:
        console.print(f"Saved in {target.path}")
    return result


def adaptation_maker(config: Mapping[str, Any]) -> Callable[[CLIP, Any], Adaptation]:
    """What builds the adaptation of composed settings, composed where there are several."""
    method, allowed = config["method"], config["allowed_targets"]

    def make(clip: CLIP, task: Any) -> Adaptation:
        nodes = {"adaptation": method["adaptation"], **method["also"]}
        parts = {name: configuration.build(node, clip, task, allowed=allowed) for name, node in nodes.items()}
        return parts["adaptation"] if len(parts) == 1 else Composed(parts)

    return make


def _begin(prepared: Run, config: dict[str, Any], target: RunDirectory | None) -> Progress:
    """Make the run directory, or find out how far the run had come in it."""
    if target is None:
        return Progress()
    with prepared.accelerator.main_process_first():
        target.open(config, configuration.identity)
    return target.load_checkpoint(prepared.accelerator.device)


def _after_epoch(
    target: RunDirectory | None, seconds: float, advance: Callable[[Mapping[str, float]], None]
) -> Callable[[Progress], None]:
    saved = time.monotonic()

    def after(progress: Progress) -> None:
        nonlocal saved
        advance(progress.history[-1])
        if target is not None and first_process() and time.monotonic() - saved >= seconds:
            target.save_checkpoint(progress)
            saved = time.monotonic()

    return after


def _diverged(error: Diverged, progress: Progress, target: RunDirectory | None) -> UserError:
    """Keep the last good state; say where it is."""
    if target is None or not progress.epoch:
        return error
    if first_process():
        target.save_checkpoint(progress)
    return UserError(f"{error}; the state before is in {target.path / 'checkpoint.pt'}")


def _record(prepared: Run, plan: Plan) -> dict[str, Any]:
    task, clip = prepared.task, prepared.clip
    packages = ("torch", "open_clip_torch", "accelerate", "torchmetrics", "hydra-core", "peft")
    return {
        "task": task.name,
        "class_names": task.class_names,
        "templates": task.templates,
        "shots": task.shots,
        "seed": task.seed,
        "support_indices": task.support_indices,
        "validation_indices": task.validation_indices,
        "backbone": {**clip.source, "fingerprint": clip.fingerprint},
        "plan": asdict(plan),
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


def learned_classifier(directory: Path, device: str, dtype: torch.dtype, config_dir: str | Path | None) -> Classifier:
    """What a finished run learned, on the backbone it was learned on.

    Raises:
        UserError: no finished run, another backbone, or a target that isn't allowed.
    """
    result = read_result(directory)
    config = {**result.config, "allowed_targets": configuration.own_modules(config_dir)}
    clip = CLIP.load(**result.config["backbone"])
    expected = result.record["backbone"]["fingerprint"]
    if clip.fingerprint != expected:
        raise UserError(
            f"{directory} was learned on another backbone ({expected}) than {clip.source['name']} with weights "
            f"{clip.source['pretrained']} is here ({clip.fingerprint}): load the weights it was learned on"
        )
    clip.to(device, dtype)
    task = SimpleNamespace(class_names=result.record["class_names"], templates=result.record["templates"])
    adaptation = adaptation_maker(config)(clip, task)
    adaptation.load_state_dict(result.tensors)
    return Classifier(clip, adaptation.to(clip.device), task.class_names)
