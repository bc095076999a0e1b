"""Fits of the methods to choose from, to folds of a task's support set."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.seeds import hash_seed
from clipadapt.data.tasks import Task
from clipadapt.errors import LASTING
from clipadapt.report.tables import count_text, percent_text, seconds_text
from clipadapt.runs.folds import HELD_OUT, fold_task, number_of_folds, stratified_folds
from clipadapt.runs.methods import build_settings
from clipadapt.runs.train import train_and_evaluate
from clipadapt.studies.candidates import Candidate, Fold, limited
from clipadapt.studies.compare import RUN_FAILURES, describe_failure
from clipadapt.tasks import task_kind

QUIET = Console(quiet=True)


@dataclass
class FoldFits:
    """Fits of candidates to folds of a task's support set, and what they scored on the images that were held out.

    Attributes:
        clip: the backbone.
        task: the task; its test sets aren't read.
        console: where to print the scores.
        folds: number of folds.
        leads: name of the figure that counts.
        title: how it is called.
        sign: 1 where more of it is better, else -1. Both are known after the first fit.
    """

    clip: DualEncoder
    task: Task
    console: Console
    folds: int = 0
    leads: str = ""
    title: str = ""
    sign: int = 1

    def __post_init__(self) -> None:
        """Find the number of folds and the figure that counts."""
        labels = self.task.support.labels
        self.folds, self.leads = number_of_folds(labels), task_kind(self.task).leading_figure(labels)

    @property
    def images(self) -> int:
        """Return the number of images that a fold learns from."""
        return len(self.task.support) * (self.folds - 1) // max(1, self.folds)

    def whole_steps(self, one: Candidate) -> int:
        """Return the number of steps of a whole fit to a fold."""
        return one.whole_steps(self.images, self.task.shots)

    def repetition(self, repeat: int) -> list[Fold]:
        """Return the folds of one repetition."""
        return [(repeat, number) for number in range(self.folds)]

    def fold(self, repeat: int, number: int) -> Task:
        """Return the task of a fold."""
        seed = hash_seed(self.task.seed, repeat)
        return fold_task(self.task, stratified_folds(self.task.support.labels, self.folds, seed)[number])

    def fit(self, one: Candidate, folds: Sequence[Fold]) -> None:
        """Fit a candidate to folds, as far as it hasn't been, and keep its scores on what they hold out."""
        for repeat, number in folds:
            if one.dropped is not None or (repeat, number) in one.scores:
                continue
            metrics = self.fit_to(one, self.fold(repeat, number))
            if metrics:
                figures = metrics["tests"][HELD_OUT]
                one.scores[repeat, number] = figures[self.leads]
                one.losses[repeat, number] = figures.get("negative_log_likelihood", 0.0)
                if "confusion" in metrics:
                    one.confusions[repeat, number] = np.array(metrics["confusion"])
                shown = metrics["figures"][self.leads]
                self.title, self.sign = shown["title"], 1 if shown["higher_is_better"] else -1
        if one.dropped is None and len(one.scores) > 1:
            steps = "whole fits" if one.most_steps is None else f"fits of {count_text(one.most_steps, 'step')}"
            told = f"{one.method}: {percent_text(one.score())}, {len(one.scores)} {steps}, {seconds_text(one.seconds)}"
            self.console.print(Text(told), soft_wrap=True)

    def fit_to(self, one: Candidate, task: Task) -> dict[str, Any]:
        """Fit a candidate to a task, note what it took, and return its metrics; none if it failed."""
        config, began = limited(one.config, one.most_steps), time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say, the run of the chosen method says again
                result = train_and_evaluate(config, self.clip, task, None, QUIET, build_settings(config))
        except LASTING:
            raise
        except RUN_FAILURES as error:
            one.dropped = describe_failure(error)
            return {}
        seconds, steps = time.monotonic() - began, result.record["plan"]["steps"]
        one.step_seconds = max(result.metrics["fit_seconds"], 1e-6) / max(1, steps)
        one.other_seconds = max(0.0, seconds - result.metrics["fit_seconds"])
        one.parameters = result.metrics["parameters"]
        one.seconds += seconds
        return result.metrics
