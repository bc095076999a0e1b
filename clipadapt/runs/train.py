"""One run from composed settings to its directory, and back from the directory to what it learned."""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.backbone.open_clip import CLIP
from clipadapt.console import first_process
from clipadapt.data import Task
from clipadapt.engine.evaluation import evaluate_run
from clipadapt.engine.fit import TrainState
from clipadapt.engine.memory import peak_memory_mb
from clipadapt.engine.run import Run
from clipadapt.engine.settings import Settings
from clipadapt.errors import DivergenceError, MissingPoint, UserError
from clipadapt.objectives.base import Objective
from clipadapt.report import progress as bars
from clipadapt.report import summary
from clipadapt.runs.directory import PREDICTIONS, RunDirectory
from clipadapt.runs.methods import (
    adaptation_maker,
    build_settings,
    build_test_time,
    gradient_rule_and_average,
    methods_for,
)
from clipadapt.runs.plan import plan
from clipadapt.runs.result import Result, make_record


def train_and_evaluate(
    config: dict[str, Any], clip: CLIP, task: Task, target: RunDirectory | None, console: Console
) -> Result:
    """Zero-shot, fit and evaluation, with what is said of them; kept in a directory, if there is one.

    Raises:
        UserError: an adaptation that doesn't fit the backbone or the task, a loss that isn't finite.
    """
    began = time.monotonic()
    settings = build_settings(config)
    console = console if first_process() else Console(quiet=True)
    prepared = _prepared(config, clip, task, settings, console)
    objective = configuration.build(
        config["method"]["objective"], prepared.clip, prepared.known, allowed=config["allowed_targets"]
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
    metrics = evaluate_run(prepared) | {
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
    result = Result(metrics, progress.history, config, make_record(prepared, told, objective), tensors, files)
    if target is not None and first_process():
        result.save(target.path)
    prepared.accelerator.wait_for_everyone()
    summary.show_result(console, metrics)
    return result


def _prepared(config: dict[str, Any], clip: CLIP, task: Task, settings: Settings, console: Console) -> Run:
    """The run; where the backbone lacks what the method edits, it is said which methods it serves."""
    progress_bar, pseudo_labels = partial(bars.images, console), config["method"]["pseudo_labels"]
    make, test_time = adaptation_maker(config), build_test_time(config)
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
        except DivergenceError as error:
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


def _diverged(error: DivergenceError, progress: TrainState, target: RunDirectory | None) -> UserError:
    """Keep the last good state; say where it is."""
    if target is None or not progress.epoch:
        return error
    if first_process():
        target.save_checkpoint(progress)
    return UserError(f"{error}; the state before is in {target.path / 'checkpoint.pt'}")
