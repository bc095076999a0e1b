"""One run from composed settings to its directory, and back from the directory to what it learned."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.open_clip import CLIP
from clipadapt.console import first_process
from clipadapt.data import Task, check, images_used, make_task, without_broken
from clipadapt.engine.fit import Diverged, TrainState
from clipadapt.engine.measure import measure
from clipadapt.engine.memory import budget, max_rows, peak_memory_mb
from clipadapt.engine.run import Run, texts_at_once
from clipadapt.engine.settings import Settings
from clipadapt.errors import MissingPoint, UserError
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.model import Classifier
from clipadapt.objectives.base import Objective
from clipadapt.report import progress as bars
from clipadapt.report import summary
from clipadapt.runs.directory import CONFIG, PREDICTIONS, RunDirectory
from clipadapt.runs.methods import (
    adaptation_maker,
    gradient_rule_and_average,
    methods_for,
    placeholder_task,
    test_time_of,
)
from clipadapt.runs.plan import plan
from clipadapt.runs.result import Result, read_result, record_of


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that composed settings describe."""
    node = config["data"]
    if "_target_" not in node:
        raise UserError(f"the task '{node['name']}' was made by hand and can't be loaded again: say which data to use")
    source = configuration.source_of(config)
    task = make_task(source, config["shots"], config["seed"], node["views"], config["classes"])
    return replace(task, origin=dict(node))


def data_change_note(
    config: Mapping[str, Any], record: Mapping[str, Any], images: Callable[[str], str] | None = None
) -> str | None:
    """What is to be said of the data of a finished run; None where they are those that it learned from.

    Args:
        config: the run's settings.
        record: as of its `Result`.
        images: `current_fingerprint`, where it is kept what that said before.
    """
    keys = ("data", "shots", "seed", "classes", "allowed_targets")
    try:
        now = (images or current_fingerprint)(json.dumps({key: config[key] for key in keys}, sort_keys=True))
    except UserError as error:
        return f"it can't be told whether the data have changed since this run was finished: {error}"
    same = now == record["images"]
    return None if same else "the data have changed since this run was finished: rerun=true computes it again"


def current_fingerprint(settings: str) -> str:
    """What stands for the images of a task; raises what `task_of` does.

    Args:
        settings: of the task, as JSON.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were told when the run was made
        return task_of(json.loads(settings)).images


def validated_images(task: Task, config: Mapping[str, Any], console: Console | None = None) -> Task:
    """The task of composed settings after a look at the image files of its run, without those that may be left out.

    Raises:
        UserError: files that can't be read: any without `data.skip_broken`, all of a class or a test set with it.
    """
    pool = config["method"]["pseudo_labels"] is not None
    with bars.images(console or Console(quiet=True), images_used(task, pool), "looked at", transient=True) as update:
        if config["data"].get("skip_broken"):
            return without_broken(task, pool, update)
        check(task, pool, update)
    return task


def settings_of(config: Mapping[str, Any]) -> Settings:
    """How the run of composed settings is fitted.

    Raises:
        UserError: an optimiser that refuses its settings.
    """
    settings: Settings = configuration.build(config["engine"], place="engine", allowed=config["allowed_targets"])
    try:
        settings.optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"engine.optimizer can't be made with its settings: {error}") from error
    return settings


def train_and_evaluate(
    config: dict[str, Any], clip: CLIP, task: Task, target: RunDirectory | None, console: Console
) -> Result:
    """Zero-shot, fit and evaluation, with what is said of them; kept in a directory, if there is one.

    Raises:
        UserError: an adaptation that doesn't fit the backbone or the task, a loss that isn't finite.
    """
    began = time.monotonic()
    settings = settings_of(config)
    console = console if first_process() else Console(quiet=True)
    prepared = _prepared(config, clip, task, settings, console)
    objective = configuration.build(
        config["method"]["objective"],
        prepared.clip,
        prepared.known,
        place="method.objective",
        allowed=config["allowed_targets"],
    )
    told = plan(prepared, objective.teachers)
    guessed = asdict(prepared.pseudo_labels) if prepared.pseudo_labels else None
    summary.show_plan(console, prepared.task, asdict(told), guessed)
    adaptation, ratio = prepared.classifier.adaptation, config["method"]["interpolation"]
    if ratio is not None:
        adaptation.interpolate(1.0)  # what has no start to go back to says so before the fit
    unfitted = adaptation.trainable_names()
    if unfitted and not prepared.epochs and prepared.test_time is None:
        warnings.warn(f"engine.epochs is 0, so that nothing is learned of {', '.join(unfitted[:3])}", stacklevel=2)
    progress = _begin(prepared, config, target)
    earlier = progress.seconds
    if progress.epoch:
        console.print(f"Going on after epoch {progress.epoch} of {prepared.epochs}.")
    _fit(prepared, objective, config, progress, target, console)
    if ratio is not None:
        adaptation.interpolate(ratio)
    prepared.fit_closed_form()
    metrics = measure(prepared) | {
        "parameters": told.parameters,
        "share": told.share,
        "fit_seconds": progress.seconds,
        "seconds": earlier + time.monotonic() - began,
        "peak_memory_mb": peak_memory_mb(prepared.accelerator.device),
        "processes": prepared.accelerator.num_processes,
        "selection": prepared.selection,
        "schedule_note": settings.schedule_note,
    }
    tensors = {name: value.detach().cpu() for name, value in adaptation.state_dict().items()}
    files = adaptation.export()
    if predictions := metrics.pop("predictions", None):
        files |= {PREDICTIONS: json.dumps(predictions).encode()}
    result = Result(metrics, progress.history, config, record_of(prepared, told, objective), tensors, files)
    if target is not None and first_process():
        result.save(target.path)
    prepared.accelerator.wait_for_everyone()
    summary.show_result(console, metrics)
    return result


def _prepared(config: dict[str, Any], clip: CLIP, task: Task, settings: Settings, console: Console) -> Run:
    """The run; where the backbone lacks what the method edits, it is said which methods it serves."""
    progress_bar, pseudo_labels = partial(bars.images, console), config["method"]["pseudo_labels"]
    make, test_time = adaptation_maker(config), test_time_of(config)
    try:
        return Run.prepare(clip, task, make, settings, progress_bar, test_time, pseudo_labels)
    except MissingPoint as error:
        others = ", ".join(methods_for(clip, config["config_dir"]))
        raise UserError(f"{error}; methods that work with this backbone: {others}") from None


def _fit(
    prepared: Run,
    objective: Objective,
    config: dict[str, Any],
    progress: TrainState,
    target: RunDirectory | None,
    console: Console,
) -> None:
    """Go on with the fit from where it is, with a bar and checkpoints."""
    source = prepared.support(objective.teachers)
    with bars.epochs(console, progress.epoch, prepared.epochs) as update:
        after = _after_epoch(target, prepared.settings.checkpoint_seconds, update)
        try:
            prepared.fit(objective, source, progress, after, *gradient_rule_and_average(config))
        except Diverged as error:
            raise _diverged(error, progress, target) from None


def _begin(prepared: Run, config: dict[str, Any], target: RunDirectory | None) -> TrainState:
    """Make the run directory, or find out how far the run had come in it."""
    if target is None:
        return TrainState()
    with prepared.accelerator.main_process_first():
        target.open(config, configuration.identity)
    if config["rerun"]:
        return TrainState(images=prepared.task.images)
    return target.load_checkpoint(prepared.accelerator.device, prepared.task.images)


def _after_epoch(
    target: RunDirectory | None, seconds: float, update: Callable[[Mapping[str, float]], None]
) -> Callable[[TrainState], None]:
    saved = time.monotonic()

    def after(progress: TrainState) -> None:
        nonlocal saved
        update(progress.history[-1])
        if target is not None and first_process() and time.monotonic() - saved >= seconds:
            target.save_checkpoint(progress)
            saved = time.monotonic()

    return after


def _diverged(error: Diverged, progress: TrainState, target: RunDirectory | None) -> UserError:
    """Keep the last good state; say where it is."""
    if target is None or not progress.epoch:
        return error
    if first_process():
        target.save_checkpoint(progress)
    return UserError(f"{error}; the state before is in {target.path / 'checkpoint.pt'}")


def learned_classifier(
    directory: Path,
    device: str,
    dtype: torch.dtype,
    config_dir: str | Path | None,
    memory: float | None = None,
    processes: int = 1,
) -> tuple[Classifier, Any]:
    """What a finished run learned, on the backbone it was learned on; and what adapts at test time, None if nothing.

    Args:
        directory: of the run.
        device: where to compute.
        dtype: number format of the backbone.
        config_dir: a folder of the user's own with modules that the run may name.
        memory: gigabytes that the text side may take where something adapts; None for half of what is free.
        processes: that share the device, if it is a CPU.

    Raises:
        UserError: no finished run, another backbone, or a target that isn't allowed.
    """
    result = read_result(directory)
    config = configuration.saved_settings(result.config, directory / CONFIG, config_dir)
    clip = CLIP.load(**config["backbone"])
    expected = result.record["backbone"]["fingerprint"]
    if clip.fingerprint != expected:
        raise UserError(
            f"{directory} was learned on another backbone ({expected}) than {clip.source['name']} with weights "
            f"{clip.source['pretrained']} is here ({clip.fingerprint}): load the weights it was learned on"
        )
    clip.to(device, dtype)
    adaptation, class_names = learned_adaptation(result, config, clip), result.record["class_names"]
    test_time, rows = test_time_of(config), None
    if test_time is not None:
        free = budget(memory, clip.device, processes) / texts_at_once(adaptation, test_time)
        with torch.autocast(clip.device.type, dtype, enabled=dtype != torch.float32):
            rows = max_rows(clip, adaptation, class_names, free, MICRO_BATCH, MICRO_BATCH)
    return Classifier(clip, adaptation, class_names, rows), test_time


def learned_adaptation(
    result: Result, config: Mapping[str, Any], clip: CLIP, templates: list[str] | None = None
) -> Adaptation:
    """The adaptation of a finished run, with what it learned.

    Args:
        result: of the run.
        config: its settings.
        clip: the backbone that it was learned on, on its device.
        templates: sentences in place of those it was learned with.
    """
    record = result.record
    task = placeholder_task(clip, record["class_names"], templates or record["templates"], record["support_shape"])
    adaptation = adaptation_maker(config)(clip, task)
    adaptation.load_state_dict(result.tensors)
    return adaptation.to(clip.device)
