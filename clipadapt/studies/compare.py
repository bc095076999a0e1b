"""Do the runs of a study one after another, and show and save their results together."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

import torch
from rich.console import Console
from rich.text import Text

from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.console import finished_work, is_main_process, make_console
from clipadapt.data.few_shot import evaluation_only_task
from clipadapt.data.tasks import Task
from clipadapt.errors import LASTING, DataError, UserError
from clipadapt.report import comparison
from clipadapt.report.rows import Row
from clipadapt.report.tables import percent_text, seconds_text, shots_text
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.methods import build_backbone, build_kind
from clipadapt.runs.run import run
from clipadapt.runs.targets import EvaluationTarget
from clipadapt.runs.tasks import build_task, current_fingerprint, data_change_note, validated_images
from clipadapt.studies import RunSpec, Study
from clipadapt.studies.aggregate import RunOutcome, aggregate_rows, save

UNTESTED = "these data have no test set to compare on"
RUN_FAILURES = (UserError, torch.OutOfMemoryError)
"""Errors that end a run but not its study."""


class SharedLoader:
    """Loads backbones and tasks; a run that needs the same as the run before it gets the same objects."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[list[Any], Any]] = {}
        self.fingerprint = cache(current_fingerprint)

    def __call__(self, config: dict[str, Any], console: Console) -> tuple[DualEncoder, Task]:
        """Return the backbone and the task of a run's settings.

        Args:
            config: the settings.
            console: shows the progress of checking the images.

        Raises:
            WeightsError: a backbone or weights that can't be had.
            DataError: images that can't be used, or no test set.
        """
        drawn = [*(config[key] for key in ("data", "shots", "seed", "classes")), config["method"]["pseudo_labels"]]
        task = self._get("task", drawn, lambda: build_tested_task(config, console))
        weights = [config["backbone"], config["engine"]["precision"]]  # a run rounds its backbone
        return self._get("backbone", weights, lambda: build_backbone(config)), task

    def _get(self, name: str, wanted: list[Any], make: Callable[[], Any]) -> Any:
        if name not in self._loaded or self._loaded[name][0] != wanted:
            self._loaded.pop(name, None)  # room for the next one
            self._loaded[name] = wanted, make()
        return self._loaded[name][1]


def build_tested_task(config: dict[str, Any], console: Console) -> Task:
    """Build the task of settings, which must have a test set, and check its images.

    Raises:
        DataError: images that can't be used, or none to test on.
    """
    task = build_task(config)
    if not task.tests:
        raise DataError(UNTESTED)
    return validated_images(task, config, console)


def run_study(study: Study, console: Console) -> list[Row]:
    """Do the runs of a study, and show and save their aggregated results.

    A run that fails with a UserError or for lack of GPU memory doesn't stop the others.

    Raises:
        DataError: further test sets whose data aren't there.
        KeyboardInterrupt: names the folder of the runs finished so far.
    """
    runs, targets = study.runs, fingerprint_targets(study)
    load, outcomes = SharedLoader(), []
    try:
        for number, spec in enumerate(runs, 1):
            finished_before = is_finished(spec)
            with console.status(f"{number} of {len(runs)}: {describe_run(spec)}"):
                outcomes.append(do_run(spec, load, targets))
            place = f"{number:{len(str(len(runs)))}}/{len(runs)}"
            text = f"{place} {describe_run(spec)}: {summary_line(outcomes[-1], finished_before)}"
            console.print(Text(text), soft_wrap=True)
    except KeyboardInterrupt as stop:
        stop.args = (finished_work(runs[0].config["output"]),)
        raise
    rows = [*aggregate_rows(outcomes, [target.name for target in targets])]
    comparison.show(console, rows)
    if is_main_process():
        save(study, rows, outcomes)
    console.print(Text(f"Saved in {study.directory}"), soft_wrap=True)
    return rows


def show(study: Study) -> None:
    """Do the runs of a study for the command line.

    Raises:
        UserError: none of them has a result.
    """
    if not any(row["scores"] for row in run_study(study, make_console())):
        raise UserError(f"none of the {len(study.runs)} runs has a result: the reasons stand below the table")


def describe_run(spec: RunSpec) -> str:
    """Return a run in words."""
    return f"{spec.method} on {spec.data}, {shots_text(spec.shots)}, seed {spec.seed}"


def summary_line(outcome: RunOutcome, finished_before: bool) -> str:
    """Return a run's accuracies and time, or why it failed, in words."""
    if outcome.failure is not None:
        return f"failed: {outcome.failure}"
    accuracies = [percent_text(outcome.metrics[key]) for key in ("accuracy", "zero_shot_accuracy")]
    when = "finished before" if finished_before else seconds_text(outcome.metrics["seconds"])
    return f"{accuracies[0]} (zero-shot {accuracies[1]}), {when}"


def do_run(spec: RunSpec, load: SharedLoader, targets: Sequence[EvaluationTarget] = ()) -> RunOutcome:
    """Do a run, or read it if it is finished, and evaluate it on further test sets."""
    finished_before = is_finished(spec)
    quiet = Console(quiet=True)
    try:
        result = run(spec.config, spec.directory, quiet, load)
    except LASTING:
        raise
    except RUN_FAILURES as error:
        return RunOutcome(spec, failure=describe_failure(error))
    note = data_change_note(spec.config, result.record, load.fingerprint) if finished_before else None
    notes = [note] if note else []
    if targets:
        notes += evaluate_on_targets(spec, result.metrics["tests"], targets, quiet)
    if not result.metrics["tests"]:
        return RunOutcome(spec, failure="; ".join([UNTESTED, *notes]))
    zero_shot = not result.tensors and spec.config["method"]["test_time"] is None
    return RunOutcome(spec, result.metrics, notes=notes, zero_shot=zero_shot)


def evaluate_on_targets(
    spec: RunSpec, tests: dict[str, Any], targets: Sequence[EvaluationTarget], console: Console
) -> list[str]:
    """Evaluate a finished run on further test sets, and add the metrics to those of its own in `tests`.

    Returns:
        Notes on the test sets that have no metrics.
    """
    run = FinishedRun(spec.directory, spec.config["config_dir"], spec.config["engine"]["cache"])
    own, notes = {*tests}, []
    for _, group in groupby(targets, lambda target: target.data):
        some = [target for target in group if target.name not in own]
        try:
            tests |= run.evaluate_targets(some, console)
        except LASTING:
            raise
        except RUN_FAILURES as error:
            notes.append(f"not tested on {', '.join(target.name for target in some)}: {describe_failure(error)}")
    taken = [target.name for target in targets if target.name in own]
    return [*notes, *(f"{spec.data} has a test set of its own called {name}, which is shown" for name in taken)]


def is_finished(spec: RunSpec) -> bool:
    """Return whether a run is finished, so that it is read instead of computed."""
    return RunDirectory(spec.directory).finished and not spec.config["rerun"]


def describe_failure(error: UserError | torch.OutOfMemoryError) -> str:
    """Return the message of a run's error on one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"not enough memory on the GPU: {str(error).partition('. ')[0]}"
    return " ".join(str(error).split())


def fingerprint_targets(study: Study) -> list[EvaluationTarget]:
    """Return a study's targets with the current fingerprints of their data.

    Raises:
        DataError: their data aren't there, and not all runs are finished.
    """
    unfinished = not all(map(is_finished, study.runs))
    found: list[EvaluationTarget] = []
    for data, group in groupby(study.targets, lambda target: target.data):
        config = {**study.runs[0].config, "data": data}
        fingerprint = "" if data is None else fingerprint_data(config, needed=unfinished)
        found += [replace(target, fingerprint=fingerprint) for target in group]
    return found


def fingerprint_data(config: dict[str, Any], needed: bool) -> str:
    """Return the fingerprint of data to test on; empty if they aren't there and aren't `needed`."""
    try:
        return evaluation_only_task(configuration.build_source(config), config["seed"], build_kind(config)).fingerprint
    except UserError:
        if needed:
            raise
        return ""
