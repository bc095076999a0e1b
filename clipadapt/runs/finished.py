"""A finished run, measured again: on its own test sets, on other data, on corrupted images."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.config import file_name
from clipadapt.console import first_process
from clipadapt.data import Split, Task
from clipadapt.data.few_shot import ALL, evaluation_only_task, make_task
from clipadapt.data.images import fingerprinted
from clipadapt.engine.measure import measure
from clipadapt.engine.run import DTYPES, Run, accelerator_for
from clipadapt.errors import UserError
from clipadapt.features.loader import check_cache
from clipadapt.files import write
from clipadapt.model import Classifier
from clipadapt.report import progress as bars
from clipadapt.runs.directory import CONFIG, TRANSFER
from clipadapt.runs.methods import test_time_of
from clipadapt.runs.result import read_result
from clipadapt.runs.train import learned_adaptation, learned_classifier, settings_of, task_of, validated_images
from clipadapt.studies import EvaluationTarget


class FinishedRun:
    """A finished run, loaded when it is first needed.

    Args:
        directory: of the run.
        config_dir: a folder of the user's own with the adaptation's module.
        cache: folder where activations are kept, which needn't be that of the run's machine; None to keep none.

    Raises:
        UserError: no finished run is there, or (once it is loaded) what it was learned on isn't.
    """

    def __init__(self, directory: str | Path, config_dir: str | Path | None = None, cache: str | None = None) -> None:
        self.directory = Path(directory)
        self.config_dir = config_dir
        result = read_result(directory)
        self.record = result.record
        self.config = configuration.saved_settings(result.config, self.directory / CONFIG, config_dir)
        self.settings = settings_of({**self.config, "engine": {**self.config["engine"], "cache": cache}})

    @cached_property
    def _learned(self) -> tuple[Any, Classifier, Any]:
        """The processes, the classifier, and what adapts at test time."""
        check_cache(self.settings)
        accelerator = accelerator_for(self.settings, test_time_of(self.config))
        classifier, test_time = learned_classifier(
            self.directory,
            str(accelerator.device),
            DTYPES[self.settings.precision],
            self.config_dir,
            self.settings.memory,
            accelerator.num_processes,
        )
        return accelerator, classifier, test_time

    def task(self, data: Mapping[str, Any] | None, console: Console) -> Task:
        """The run's task, or other data with all their classes to test on; its images are looked at.

        Other data without a test set are tested on whole; those that the run learned from, on what it left of them.
        Where all classes are among the run's, they are looked for with the run's templates, unless others are chosen in
        `data`; other classes have the data's own.

        Args:
            data: settings of the other data.
            console: shows how that comes on.

        Raises:
            UserError: nothing to test on, images that can't be used, or some among which those that were learned from
                can't be found any more.
        """
        own = {"data": configuration.at_home({**self.config, "config_dir": self.config_dir})}
        config = {**self.config, **(own if data is None else {"data": data, "classes": ALL})}
        learned_from = configuration.same_images(config["data"], self.config["data"])
        task = task_of(config) if data is None else self._other(config, learned_from)
        changed = learned_from and task.images != self.record["images"]
        if changed and not configuration.source_of(config).tests:
            raise UserError(
                f"the images of '{task.name}' have changed since the run, so that those it learned from can't be left "
                "out of a test: put others into a folder test, or run it again with rerun=true"
            )
        if not task.tests:
            raise UserError(
                f"'{task.name}' has no test set to measure on: put a folder test with one folder for each class into "
                "it, or name other data with data=…"
            )
        return validated_images(task, config, console)

    def _other(self, config: Mapping[str, Any], learned_from: bool) -> Task:
        source, record = configuration.source_of(config), self.record
        if learned_from and not source.tests:
            task = make_task(source, record["shots"], record["seed"])
        else:
            task = evaluation_only_task(source, record["seed"])
        usual = configuration.reference({**config, "config_dir": self.config_dir})["data"]
        chosen = config["data"].get("templates") != usual.get("templates")
        if chosen or not {*task.class_names} <= {*record["class_names"]}:
            return task
        return replace(task, templates=record["templates"])

    def measure(self, task: Task, console: Console) -> dict[str, Any]:
        """Figures on a task's test sets, as in a run's `metrics`; its class names and templates take the run's place.

        Raises:
            UserError: what was learned belongs to classes that aren't the task's, or a method that adapts along a
                stream, in several processes.
        """
        accelerator, _, test_time = self._learned
        progress = partial(bars.images, console)
        run = Run.for_evaluation(self._classifier_for(task), task, accelerator, self.settings, progress, test_time)
        found = measure(run)
        found.pop("predictions", None)
        return found | {"schedule_note": self.settings.schedule_note}

    def _classifier_for(self, task: Task) -> Classifier:
        _, classifier, _ = self._learned
        if task.templates != self.record["templates"]:
            clip = classifier.clip
            adaptation = learned_adaptation(read_result(self.directory), self.config, clip, task.templates)
            return Classifier(clip, adaptation, task.class_names, classifier.max_rows)
        return classifier if task.class_names == classifier.class_names else classifier.for_classes(task.class_names)

    def evaluate_targets(self, targets: Sequence[EvaluationTarget], console: Console) -> dict[str, dict[str, float]]:
        """Figures by target; each measured once, those of the same data together, then read from the run's directory.

        Raises:
            UserError: as of `task` and `measure`.
        """
        missing = [target for target in targets if not self._kept(target).is_file()]
        for data, some in groupby(missing, lambda target: target.data):
            task = self.task(data, console)
            tests = tested_on([*some], next(iter(task.tests.values())))
            found = self.measure(replace(task, tests=tests), console)["tests"]
            self._keep([target for target in missing if target.name in tests], found)
        return {target.name: json.loads(self._kept(target).read_text()) for target in targets}

    def _kept(self, target: EvaluationTarget) -> Path:
        """Where the figures on a target are kept; the latest ones, where it isn't known which images it has now."""
        asked = json.dumps(configuration.identity(asdict(replace(target, images=""))), sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        folder, stem = self.directory / TRANSFER, f"{file_name(target.name)}-{digest}"
        kept = sorted(folder.glob(f"{stem}*.json"), key=os.path.getmtime)
        return kept[-1] if kept and not target.images else folder / f"{stem}{target.images and '-'}{target.images}.json"

    def _keep(self, targets: Sequence[EvaluationTarget], found: Mapping[str, Any]) -> None:
        if first_process():
            for target in targets:
                self._kept(target).parent.mkdir(exist_ok=True)
                write(self._kept(target), json.dumps(found[target.name], indent=2) + "\n")
        self._learned[0].wait_for_everyone()


def tested_on(targets: Sequence[EvaluationTarget], test: Split) -> dict[str, Split]:
    """By target its images, of the first test set of their data."""
    if any(target.corruption is not None for target in targets):
        test = replace(test, images=fingerprinted(test.images))
    return {
        target.name: test
        if target.corruption is None
        else configuration.build(target.corruption, test, place="corruption")
        for target in targets
    }
