"""Evaluate a finished run again: on its own test sets, on other data, on corrupted images."""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from clipadapt import config as configuration
from clipadapt.checksums import damage_as_user_error, dump_checked_json, read_checked_json
from clipadapt.config import file_name
from clipadapt.console import is_main_process
from clipadapt.data import Split, Task
from clipadapt.data.few_shot import ALL, evaluation_only_task, make_task
from clipadapt.data.images import with_fingerprints
from clipadapt.data.network import cache_only
from clipadapt.engine.accelerator import DTYPES, accelerator_for
from clipadapt.engine.evaluation import evaluate_run
from clipadapt.engine.run import Run
from clipadapt.errors import DataError
from clipadapt.files import make_folder, write_atomically
from clipadapt.report import progress as bars
from clipadapt.report import summary
from clipadapt.runs.artifact import settings_file
from clipadapt.runs.competing import Competing, among_classes
from clipadapt.runs.directory import TRANSFER
from clipadapt.runs.learned import learned_adaptation, learned_head
from clipadapt.runs.methods import build_kind, build_settings, build_test_time, with_usable_cache
from clipadapt.runs.records import check_figures
from clipadapt.runs.result import read_result
from clipadapt.runs.targets import EvaluationTarget
from clipadapt.runs.tasks import build_task, data_change_note, framing, named_as_recorded, validated_images
from clipadapt.tasks import Head, task_kind
from clipadapt.threads import limited_threads


class FinishedRun:
    """A finished run to evaluate; its classifier is loaded on first use.

    Args:
        directory: of the run.
        config_dir: a folder of the user's own with the adaptation's module.
        cache: folder of the disk cache on this machine; None for no disk cache.
        pretrained: a tag or a file of the backbone's weights on this machine; None for what the settings say.

    Raises:
        UserError: no finished run is there, or, on first use, its backbone is not the one that it was trained on.
    """

    def __init__(
        self,
        directory: str | Path,
        config_dir: str | Path | None = None,
        cache: str | None = None,
        pretrained: str | None = None,
    ) -> None:
        self.directory, self.pretrained = Path(directory), pretrained
        self.config_dir = config_dir
        result = read_result(directory)
        self.record, self.tensors, self.metrics = result.record, result.tensors, result.metrics
        self.config = configuration.saved_settings(result.config, settings_file(self.directory), config_dir)
        self.settings = build_settings({**self.config, "engine": {**self.config["engine"], "cache": cache}})

    @cached_property
    def _learned(self) -> tuple[Any, Head, Any]:
        """The accelerator, the head, and the test-time method or None."""
        self.settings = with_usable_cache(self.settings)
        accelerator = accelerator_for(self.settings, build_test_time(self.config))
        head, test_time, *_ = learned_head(
            self.directory,
            str(accelerator.device),
            DTYPES[self.settings.precision],
            self.config_dir,
            self.settings.memory,
            accelerator.num_processes,
            self.pretrained,
        )
        return accelerator, head, test_time

    def task(
        self,
        data: Mapping[str, Any] | None,
        console: Console,
        skip_broken: bool = False,
        classes: Competing = "data",
    ) -> Task:
        """Build the task to evaluate on, and check its images: the run's own, or other data with all their classes.

        Other data without a test set are tested on as a whole; if the run was trained on them, without its training
        images. Templates are the run's if it knows all classes of the data, unless `data` chooses others; else they are
        those of the data.

        Args:
            data: settings below `data` of other data; None for the run's own.
            console: shows the progress of checking the images.
            skip_broken: leave out images of the other data that can't be read; the run's own are as it had them.
            classes: which classes compete on other data: "data" for theirs, "run" for all of the run's, as deployed.

        Raises:
            DataError: nothing to test on, images that can't be used, or data that changed so that the training images
                can't be left out.
        """
        own = {"data": configuration.with_local_home({**self.config, "config_dir": self.config_dir})}
        other = {"data": data, "classes": ALL, "task": {**self.config["task"], "skip_broken": skip_broken}}
        config = {**self.config, **(own if data is None else other)}
        learned_from = configuration.same_images(config["data"], self.config["data"])
        if data is not None and "_target_" not in self.config["data"]:  # packed, or made by hand
            warnings.warn(
                "which images it was learned from isn't known here: figures on any of them would look better than "
                "they are",
                stacklevel=3,
            )
        with cache_only() if data is None else nullcontext():
            task = self._own(config) if data is None else self._other(config, learned_from, classes)
        changed = learned_from and task.fingerprint != self.record["fingerprint"]
        if changed and not configuration.build_source(config).tests:
            raise DataError(
                f"the images of '{task.name}' have changed since the run, so that those it learned from can't be left "
                "out of a test: put others into a folder test, or run it again with rerun=true"
            )
        if not task.tests:
            raise DataError(
                f"'{task.name}' has no test set to measure on: put a folder test with one folder for each class into "
                "it, or name other data with data=…"
            )
        return validated_images(task, config, console)

    def _own(self, config: Mapping[str, Any]) -> Task:
        """Return the run's own task; one without a test set is tested on all of it if nothing was learned from it."""
        task = named_as_recorded(build_task(config), self.record)
        learned_nothing = not (self.tensors or self.record["pseudo_labels"])
        if task.tests or task.pool is None or not (learned_nothing and task.pool.labelled and len(task.pool)):
            return task
        return replace(task, tests={"test": task.pool})

    def _other(self, config: Mapping[str, Any], learned_from: bool, classes: Competing) -> Task:
        source, record = configuration.build_source(config), self.record
        if learned_from and not source.tests:
            task = make_task(source, record["shots"], record["seed"], kind=build_kind(config))
        else:
            task = evaluation_only_task(source, record["seed"], build_kind(config))
        task = named_as_recorded(framing(config).task(task), record)
        words = record.get("words", {})
        if classes == "run" or len(task.class_names) == 1:
            return among_classes(task, record["class_names"], record["templates"], words)
        if {*task.class_names} < {*record["class_names"]}:
            warnings.warn(
                f"tested among the {len(task.class_names)} classes of '{task.name}': with classes=run, all "
                f"{len(record['class_names'])} of the run compete",
                stacklevel=3,
            )
        usual = configuration.reference({**config, "config_dir": self.config_dir})["data"]
        chosen = config["data"].get("templates") != usual.get("templates")
        if chosen or not {*task.class_names} <= {*record["class_names"]}:
            return task
        return replace(task, templates=record["templates"], words={**words, **task.words})

    def evaluate_task(self, task: Task, console: Console) -> dict[str, Any]:
        """Evaluate on a task's test sets; the task's class names and templates take the place of the run's.

        Returns:
            The metrics, as in a run's `metrics`.

        Raises:
            UserError: the learned tensors belong to other classes than the task's, or a method that adapts along a
                stream is evaluated in several processes.
        """
        accelerator, head, test_time = self._learned
        progress = partial(bars.images, console)
        with limited_threads(head.clip.parameters):
            run = Run.for_evaluation(self._head_for(task), task, accelerator, self.settings, progress, test_time)
            known = self._known_scores(task)
            found = evaluate_run(run, known=known)
        found.pop("predictions", None)
        if known is not None:
            found["known_scores"] = known
        return found | {"schedule_note": self.settings.schedule_note}

    def _known_scores(self, task: Task) -> Mapping[str, Any] | None:
        """Return what the run's validation images say of answers on a task; None of other classes or templates."""
        same = (task.class_names, task.templates) == (self.record["class_names"], self.record["templates"])
        return self.metrics.get("known_scores") if same else None

    def _head_for(self, task: Task) -> Head:
        _, head, _ = self._learned
        known = {name: head.words[name] for name in task.class_names if name in head.words}
        classes = task.class_names if known == task.words else dict(task.words_by_class)
        if task.templates != self.record["templates"]:
            clip = head.clip
            adaptation = learned_adaptation(read_result(self.directory), self.config, clip, task.templates)
            return task_kind(task).head(clip, adaptation, classes, head.max_rows)
        return head if classes == head.class_names else head.for_classes(classes)

    def evaluate_targets(self, targets: Sequence[EvaluationTarget], console: Console) -> dict[str, dict[str, float]]:
        """Return metrics by target: read from the run's directory, or evaluated and saved there.

        Raises:
            UserError: as of `task` and `evaluate_task`.
        """
        missing = [target for target in targets if not self._find_file(target).exists()]
        for data, some in groupby(missing, lambda target: target.data):
            task = self.task(data, console)
            tests = corrupt_test_set([*some], next(iter(task.tests.values())))
            found = self.evaluate_task(replace(task, tests=tests), console)["tests"]
            self._save([target for target in missing if target.name in tests], found)
        return {target.name: self._read(target) for target in targets}

    def _read(self, target: EvaluationTarget) -> dict[str, float]:
        path = self._find_file(target)
        with damage_as_user_error(path, "delete it, and the run is evaluated there again"):
            return check_figures(read_checked_json(path))

    def _find_file(self, target: EvaluationTarget) -> Path:
        """Return the file of a target's metrics: the newest one if the target's current images aren't known."""
        asked = json.dumps(configuration.identity(asdict(replace(target, fingerprint=""))), sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        folder, stem = self.directory / TRANSFER, f"{file_name(target.name)}-{digest}"
        saved = sorted(folder.glob(f"{stem}*.json"), key=os.path.getmtime)
        if saved and not target.fingerprint:
            return saved[-1]
        return folder / f"{'-'.join(filter(None, (stem, target.fingerprint)))}.json"

    def _save(self, targets: Sequence[EvaluationTarget], found: Mapping[str, Any]) -> None:
        if is_main_process():
            for target in targets:
                make_folder(self._find_file(target).parent)
                write_atomically(self._find_file(target), dump_checked_json(found[target.name]))
        self._learned[0].wait_for_everyone()


def corrupt_test_set(targets: Sequence[EvaluationTarget], test: Split) -> dict[str, Split]:
    """Return by target the images of a test set, corrupted as the target says."""
    if any(target.corruption is not None for target in targets):
        test = replace(test, images=with_fingerprints(test.images))
    return {
        target.name: test
        if target.corruption is None
        else configuration.build(target.corruption, test, place="corruption")
        for target in targets
    }


def evaluate_finished(
    directory: str | Path,
    data: Mapping[str, Any] | None = None,
    console: Console | None = None,
    config_dir: str | Path | None = None,
    skip_broken: bool = False,
    classes: Competing = "data",
    pretrained: str | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run on its own test sets or on another task's, and show the metrics.

    Args:
        directory: of the run.
        data: settings below `data` of another task; its class names take the place of the run's.
        console: where to print.
        config_dir: a folder of the user's own with the adaptation's module.
        skip_broken: leave out images of the other data that can't be read.
        classes: which classes compete on the other data; see `FinishedRun.task`.
        pretrained: a tag or a file of the backbone's weights on this machine; None for what the settings say.

    Returns:
        The metrics, as in a run's `metrics`.

    Raises:
        UserError: no finished run, learned tensors that belong to other classes than the task's, nothing to test on,
            or a method that adapts along a stream, in several processes.
    """
    console = console or Console()
    run = FinishedRun(directory, config_dir, configuration.compose()["engine"]["cache"], pretrained)
    metrics = run.evaluate_task(run.task(data, console, skip_broken, classes), console)
    with cache_only():
        note = data_change_note(run.config, run.record) if data is None else None
    if note:
        console.print(Text(f"note: {note}"))
    summary.show_evaluation(console, metrics)
    return metrics
