"""Train and evaluate one run: zero-shot, fit, evaluation, and the files of its directory."""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.config.check import leaves
from clipadapt.console import is_main_process
from clipadapt.data import Task
from clipadapt.data.tasks import image_names
from clipadapt.engine.evaluation import evaluate_run
from clipadapt.engine.fit import TrainState
from clipadapt.engine.memory import peak_memory_mb
from clipadapt.engine.preparing import prepare_run
from clipadapt.engine.processes import is_lost_process
from clipadapt.engine.run import Run
from clipadapt.engine.settings import Settings
from clipadapt.engine.tracking import Tracking, tracked
from clipadapt.errors import DivergenceError, MissingPoint, SettingsError
from clipadapt.objectives.base import Objective
from clipadapt.report import progress as bars
from clipadapt.report import summary
from clipadapt.report.predictions import tested_csv
from clipadapt.runs.cross_validation import check_cross_validation, cross_validate
from clipadapt.runs.directory import PREDICTIONS, PREDICTIONS_CSV, RunDirectory
from clipadapt.runs.methods import (
    adaptation_maker,
    build_settings,
    build_test_time_with_teachers,
    gradient_rule_and_average,
    load_teachers,
    methods_for,
    note_searched,
    objective_class,
)
from clipadapt.runs.plan import Plan, plan
from clipadapt.runs.result import Result, make_record
from clipadapt.runs.start import learned_hash, start_from
from clipadapt.stopping import asked_to_stop
from clipadapt.tasks import task_kind
from clipadapt.threads import limited_threads


def train_and_evaluate(
    config: dict[str, Any],
    clip: DualEncoder,
    task: Task,
    target: RunDirectory | None,
    console: Console,
    settings: Settings | None = None,
) -> Result:
    """Train a method, evaluate it against zero-shot, print the metrics, and save all of it.

    Args:
        config: the run's settings.
        clip: the backbone; it is moved to the device.
        task: the task.
        target: the run's directory; None saves nothing.
        console: where to print.
        settings: the settings below `engine`, if they are built already.

    Raises:
        SettingsError: an adaptation that doesn't fit the backbone or the task, or a teacher that can't be loaded.
        DivergenceError: a loss that isn't finite.
    """
    with limited_threads(clip.parameters):
        return _train_and_evaluate(config, clip, task, target, console, settings)


def _train_and_evaluate(
    config: dict[str, Any],
    clip: DualEncoder,
    task: Task,
    target: RunDirectory | None,
    console: Console,
    settings: Settings | None,
) -> Result:
    began = time.monotonic()
    settings = build_settings(config) if settings is None else settings
    if settings.cross_validate is not None:
        check_cross_validation(settings.cross_validate, task, config)
    console = console if is_main_process() else Console(quiet=True)
    teachers = load_teachers(clip, objective_class(config).teachers_for(config["method"]["objective"]))
    prepared = _prepare(config, clip, task, settings, console)
    if config["from"] is not None:
        start_from(config["from"], prepared, config)
    prepared.test_on_all()
    objective = build_objective(config, prepared, teachers)
    planned = plan(prepared, objective.teachers)
    pseudo_labels = asdict(prepared.pseudo_labels) if prepared.pseudo_labels else None
    summary.show_plan(console, prepared.task, asdict(planned), pseudo_labels)
    _check_before_fit(prepared, config)
    progress = _begin(prepared, config, target)
    earlier = progress.seconds
    if progress.epoch:
        console.print(f"Going on after epoch {progress.epoch} of {prepared.epochs}.")
    with _tracked(prepared, config, progress, target) as tracking:
        _fit(prepared, objective, config, progress, target, console, tracking)
        metrics = _evaluate(prepared, planned, config) | {
            "fit_seconds": progress.seconds,
            "seconds": earlier + time.monotonic() - began,
            "peak_memory_mb": peak_memory_mb(prepared.accelerator.device),
        }
        tracking.log_metrics(metrics, progress.epoch)
    if settings.cross_validate is not None:
        metrics["cross_validation"] = _cross_validate(config, clip, task, console, settings)
    result = _make_result(prepared, planned, objective, config, metrics, progress.history)
    if target is not None and is_main_process():
        result.save(target.path)
    prepared.accelerator.wait_for_everyone()
    summary.show_result(console, result.metrics)
    return result


def _cross_validate(
    config: dict[str, Any], clip: DualEncoder, task: Task, console: Console, settings: Settings
) -> dict[str, Any]:
    """Return what `cross_validate` finds of a run's method, with its settings but for those of the whole run."""
    folds, own = settings.cross_validate or 0, replace(settings, cross_validate=None, tracker=None)
    console.print(f"Fits to {folds} folds of the images to learn from, to measure on what each holds out.")

    def fit(part: Task) -> dict[str, Any]:
        return _train_and_evaluate(config, clip, part, None, Console(quiet=True), own).metrics

    return cross_validate(folds, task, fit)


def build_objective(config: Mapping[str, Any], prepared: Run, teachers: Sequence[DualEncoder]) -> Objective:
    """Build the method's objective, with its teachers on the run's device.

    A method that names no objective has the default one of its kind of task.
    """
    node, clip, known = config["method"]["objective"], prepared.clip, prepared.known
    if node is None:
        return task_kind(prepared.task).default_objective(clip, known)
    allowed = config["allowed_targets"]
    objective: Objective = configuration.build(node, clip, known, place="method.objective", allowed=allowed)
    if teachers:
        objective.use_teachers([one.to(clip.device, clip.dtype) for one in teachers])
    return objective


def _prepare(config: dict[str, Any], clip: DualEncoder, task: Task, settings: Settings, console: Console) -> Run:
    """Prepare the run; if the backbone lacks a point that the method edits, name the methods that it can have."""
    progress_bar, pseudo_labels = partial(bars.images, console), config["method"]["pseudo_labels"]
    make, test_time = adaptation_maker(config), build_test_time_with_teachers(config, clip)
    try:
        return prepare_run(
            clip,
            task,
            make,
            settings,
            progress_bar,
            test_time,
            pseudo_labels,
            objective_class(config),
            config["method"]["imbalance"],
        )
    except MissingPoint as error:
        others = ", ".join(methods_for(clip, config["config_dir"]))
        raise SettingsError(f"{error}; methods that work with this backbone: {others}") from None


def _check_before_fit(prepared: Run, config: dict[str, Any]) -> None:
    """Check that the adaptation can be interpolated if it has to be; warn of what has no effect."""
    adaptation = prepared.head.adaptation
    if config["method"]["interpolation"] is not None:
        adaptation.interpolate(1.0)  # an adaptation without a start to go back to raises here, before the fit
    untrained = adaptation.trainable_names()
    if untrained and not prepared.epochs and prepared.test_time is None:
        warnings.warn(f"engine.epochs is 0, so that nothing is learned of {', '.join(untrained[:3])}", stacklevel=3)
    note_searched(adaptation, config)


def _begin(prepared: Run, config: dict[str, Any], target: RunDirectory | None) -> TrainState:
    """Make the run directory, or load the state that a stopped run left in it."""
    if target is None:
        return TrainState()
    with prepared.accelerator.main_process_first():
        target.open(config, configuration.identity)
    if config["rerun"]:
        return TrainState(fingerprint=prepared.task.fingerprint)
    return target.load_checkpoint(prepared.accelerator.device, prepared.task.fingerprint)


def _tracked(
    prepared: Run, config: dict[str, Any], progress: TrainState, target: RunDirectory | None
) -> AbstractContextManager[Tracking]:
    """Return the tracker's run as a context; without a directory, TensorBoard's files go to a new one."""
    name = f"{config['method']['name']} on {prepared.task.name}, {prepared.task.shots} shots, seed {prepared.task.seed}"
    folder = Path(config["output"], time.strftime("finetune-%Y-%m-%d-%H-%M-%S")) if target is None else target.path
    choice = prepared.settings.tracker if is_main_process() else None
    return tracked(choice, name, folder, dict(leaves(config)), progress.epoch)


def _fit(
    prepared: Run,
    objective: Objective,
    config: dict[str, Any],
    progress: TrainState,
    target: RunDirectory | None,
    console: Console,
    tracking: Tracking,
) -> None:
    """Fit by gradient from where `progress` stands, with a bar and checkpoints; then in closed form."""
    source = prepared.support(objective.teachers, objective.teachers_see_others)
    with bars.epochs(console, progress.epoch, prepared.epochs) as update:
        after = _after_epoch(target, prepared.settings.checkpoint_seconds, [update, tracking.log_epoch])
        try:
            prepared.fit(objective, source, progress, after, *gradient_rule_and_average(config))
        except DivergenceError as error:
            raise _diverged(error, progress, target) from None
        except BaseException as error:
            if asked_to_stop() or is_lost_process(error):
                _save_last_epoch(progress, target)
            raise
    finish_fit(prepared, config)


def finish_fit(prepared: Run, config: Mapping[str, Any]) -> None:
    """Interpolate what gradients have fitted, if the method does, and fit in closed form what they haven't."""
    ratio = config["method"]["interpolation"]
    if ratio is not None:
        prepared.head.adaptation.interpolate(ratio)
    prepared.fit_closed_form()


def _after_epoch(
    target: RunDirectory | None, seconds: float, updates: Sequence[Callable[[Mapping[str, float]], None]]
) -> Callable[[TrainState], None]:
    """Return what follows every epoch: bar and tracker get it, and every so many seconds rank 0 saves a checkpoint."""
    saved = time.monotonic()

    def after(progress: TrainState) -> None:
        nonlocal saved
        for update in updates:
            update(progress.history[-1])
        if target is not None and is_main_process() and time.monotonic() - saved >= seconds:
            target.save_checkpoint(progress)
            saved = time.monotonic()

    return after


def _diverged(error: DivergenceError, progress: TrainState, target: RunDirectory | None) -> DivergenceError:
    """Save the last good state and return the error with the path of it."""
    if target is None or not progress.epoch:
        return error
    _save_last_epoch(progress, target)
    return DivergenceError(f"{error}; the state before is in {target.checkpoints.path(progress.epoch)}")


def _save_last_epoch(progress: TrainState, target: RunDirectory | None) -> None:
    """Save the state after the last whole epoch, if there is one, from rank 0."""
    if target is not None and progress.epoch and is_main_process():
        target.save_checkpoint(progress)


def _evaluate(prepared: Run, planned: Plan, config: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate a fitted run and return its metrics, with those of its size and how it was selected."""
    selection = [prepared.selection] + ([f"method by {config['choice']['by']}"] if "choice" in config else [])
    return evaluate_run(prepared, validation=True) | {
        "parameters": planned.parameters,
        "share": planned.share,
        "processes": prepared.accelerator.num_processes,
        "selection": "; ".join(selection),
        "schedule_note": prepared.settings.schedule_note,
    }


def _make_result(
    prepared: Run,
    planned: Plan,
    objective: Objective,
    config: dict[str, Any],
    metrics: dict[str, Any],
    history: list[dict[str, float]],
) -> Result:
    """Return the result of an evaluated run; its predictions become files."""
    adaptation = prepared.head.adaptation
    tensors = {name: value.detach().cpu() for name, value in adaptation.state_dict().items()}
    files, record = adaptation.export(), make_record(prepared, planned, objective)
    if config["from"] is not None:
        record["start"] = learned_hash(config["from"])
    if predictions := metrics.pop("predictions", None):
        images = {name: image_names(split) for name, split in prepared.task.tests.items()}
        files |= {PREDICTIONS: json.dumps(predictions).encode()}
        files |= {
            PREDICTIONS_CSV: tested_csv(predictions, images, prepared.task.words).encode("utf-8", "surrogateescape")
        }
    return Result(metrics, history, config, record, tensors, files, prepared.clip)
