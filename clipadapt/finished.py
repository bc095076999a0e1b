"""A finished run, measured again: on its own test sets, on other data, on corrupted images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.classifier import Classifier
from clipadapt.config import Target, file_name
from clipadapt.console import first_process
from clipadapt.data import Split, Task
from clipadapt.data.few_shot import ALL, tested_whole
from clipadapt.engine.keeping import check_cache
from clipadapt.engine.measure import measure
from clipadapt.engine.run import DTYPES, Run, accelerator_for
from clipadapt.engine.run_directory import write
from clipadapt.errors import UserError
from clipadapt.methods import test_time_of
from clipadapt.report import progress as bars
from clipadapt.result import read_result
from clipadapt.runs import learned_classifier, looked_at, settings_of, task_of

ELSEWHERE = "elsewhere"


class FinishedRun:
    """A finished run, loaded when it is first needed.

    Args:
        directory: of the run.
        config_dir: a folder of the user's own with the adaptation's module.

    Raises:
        UserError: no finished run is there, or (once it is loaded) what it was learned on isn't.
    """

    def __init__(self, directory: str | Path, config_dir: str | Path | None = None) -> None:
        self.directory = Path(directory)
        self.config_dir = config_dir
        self.config = {**read_result(directory).config, "allowed_targets": configuration.own_modules(config_dir)}
        here = {"cache": configuration.compose()["engine"]["cache"]}  # the run may be from another machine
        self.settings = settings_of({**self.config, "engine": {**self.config["engine"], **here}})

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

        Other data without a test set are tested on whole: nothing was learned from them.

        Args:
            data: settings of the other data.
            console: shows how that comes on.

        Raises:
            UserError: nothing to test on, or images that can't be used.
        """
        own = {"data": configuration.at_home({**self.config, "config_dir": self.config_dir})}
        config = {**self.config, **(own if data is None else {"data": data, "classes": ALL})}
        task = task_of(config) if data is None else tested_whole(configuration.source_of(config), self.config["seed"])
        if not task.tests:
            raise UserError(
                f"'{task.name}' has no test set to measure on: put a folder test with one folder for each class into "
                "it, or name other data with data=…"
            )
        return looked_at(task, config, console)

    def measure(self, task: Task, console: Console) -> dict[str, Any]:
        """Figures on a task's test sets, as in a run's `metrics`; its class names take the place of the run's.

        Raises:
            UserError: what was learned belongs to classes that aren't the task's, or a method that adapts along a
                stream, in several processes.
        """
        accelerator, classifier, test_time = self._learned
        if task.class_names != classifier.class_names:
            classifier = classifier.for_classes(task.class_names)
        run = Run.of(classifier, task, accelerator, self.settings, partial(bars.images, console), test_time)
        found = measure(run)
        found.pop("predictions", None)
        return found | {"remark": self.settings.remark}

    def elsewhere(self, targets: Sequence[Target], console: Console) -> dict[str, dict[str, float]]:
        """Figures by target; each measured once, those of the same data together, then read from the run's directory.

        Raises:
            UserError: as of `task` and `measure`.
        """
        missing = [target for target in targets if not self._kept(target).is_file()]
        for data, some in groupby(missing, lambda target: target.data):
            task = self.task(data, console)
            test = next(iter(task.tests.values()))
            tests = {target.name: tested_on(target, test) for target in some}
            found = self.measure(replace(task, tests=tests), console)["tests"]
            self._keep([target for target in missing if target.name in tests], found)
        return {target.name: json.loads(self._kept(target).read_text()) for target in targets}

    def _kept(self, target: Target) -> Path:
        """Where the figures on a target are kept."""
        asked = json.dumps(configuration.identity(asdict(target)), sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return self.directory / ELSEWHERE / f"{file_name(target.name)}-{digest}.json"

    def _keep(self, targets: Sequence[Target], found: Mapping[str, Any]) -> None:
        if first_process():
            for target in targets:
                self._kept(target).parent.mkdir(exist_ok=True)
                write(self._kept(target), json.dumps(found[target.name], indent=2) + "\n")
        self._learned[0].wait_for_everyone()


def tested_on(target: Target, test: Split) -> Split:
    """A target's images, of the first test set of its data."""
    corrupted: Split = test if target.corruption is None else configuration.build(target.corruption, test)
    return corrupted
