"""The methods that `clipadapt choose` tries: which there are, what they cost, and how they scored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

import numpy as np

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.config import compose
from clipadapt.data.tasks import Task
from clipadapt.errors import UserError
from clipadapt.features.task_views import number_of_views
from clipadapt.model import AdaptedCLIP
from clipadapt.runs.methods import adaptation_maker, build_settings, objective_class, placeholder_task
from clipadapt.tasks.confusion import intervals

Fold = tuple[int, int]
"""A repetition of the cross-validation, and the number of a fold in it."""

PUBLISHED = {
    "clip_lora": 72.7,
    "promptsrc": 72.3,
    "tip_adapter_f": 71.0,
    "taskres": 70.8,
    "plotpp": 70.7,
    "prograd": 69.7,
    "maple": 69.3,
    "coop": 67.6,
    "cocoop": 66.8,
}
"""Accuracy of ViT-B/16 after one shot, average of 11 data sets, in percent.

From the comparison in the repository of CLIP-LoRA (github.com/MaxZanella/CLIP-LoRA), but PromptSRC, MaPLe, CoOp and
CoCoOp from the README of CasPL (github.com/megvii-research/CasPL), PLOT++ from its own README.
"""


@dataclass
class Candidate:
    """A method that may be chosen.

    Attributes:
        method: its name.
        config: the settings of its run.
        cheap: whether it computes on features alone.
        learns: whether it learns anything, so that a fit reads views of the images to learn from.
        images_a_step: how many images go through the image tower in a step.
        scores: the leading figure on what each fold held out, of fits within the same number of steps.
        losses: the negative log likelihood there, which decides between equal scores, where the kind of task has one.
        confusions: numbers of images `[C, C]` that each fold held out, by class and answer, of classification.
        most_steps: that number; None for whole fits.
        seconds: of all its fits together.
        step_seconds: of one step; 0 before the first fit.
        other_seconds: of a fit beside its steps.
        parameters: how many numbers it learned.
        new_classes: whether classes can be named after the fit.
        dropped: why it can't be chosen; None if it can.
    """

    method: str
    config: dict[str, Any]
    cheap: bool
    learns: bool = True
    images_a_step: int = 0
    scores: dict[Fold, float] = field(default_factory=dict)
    losses: dict[Fold, float] = field(default_factory=dict)
    confusions: dict[Fold, np.ndarray] = field(default_factory=dict)
    most_steps: int | None = None
    seconds: float = 0.0
    step_seconds: float = 0.0
    other_seconds: float = 0.0
    parameters: int = 0
    new_classes: bool = False
    dropped: str | None = None

    def score(self) -> float:
        """Return the mean of its scores."""
        return mean(self.scores.values())

    def loss(self) -> float:
        """Return the mean of its losses."""
        return mean(self.losses.values())

    def interval(self, figure: str) -> list[float] | None:
        """Return the 95 % interval of a figure on the images that one repetition held out, where there is one."""
        first = [confusion for (repeat, _), confusion in self.confusions.items() if repeat == 0]
        return intervals(np.sum(first, axis=0)).get(figure) if first else None

    def whole_steps(self, images: int, shots: int) -> int:
        """Return the number of steps of a whole fit to this number of images."""
        settings = build_settings(self.config)
        steps = -(-images // settings.batch_size)
        return steps * settings.epochs_within(shots, steps)

    def seconds_for(self, steps: int) -> float:
        """Return the expected seconds of a fit of so many steps, after a first fit."""
        return self.other_seconds + self.step_seconds * steps

    def steps_within(self, seconds: float) -> int:
        """Return the number of steps of a fit within some seconds, after a first fit."""
        return int((seconds - self.other_seconds) / self.step_seconds)

    def allow(self, most_steps: int | None) -> None:
        """Set the steps of its next fits; scores of fits within another number of steps are forgotten."""
        if most_steps != self.most_steps:
            self.most_steps = most_steps
            self.scores, self.losses, self.confusions = {}, {}, {}


def limited(config: dict[str, Any], most_steps: int | None) -> dict[str, Any]:
    """Return a run's settings with a limit on its steps, if there is one."""
    return config if most_steps is None else {**config, "engine": {**config["engine"], "max_steps": most_steps}}


def without_learning(one: Candidate) -> Candidate:
    """Return zero-shot CLIP as a candidate, with another one's settings beside its method."""
    method = compose(["method=zero_shot"])["method"]
    return Candidate(method["name"], one.config | {"method": method}, cheap=True, learns=False)


def find_candidates(clip: DualEncoder, task: Task, configs: Mapping[str, dict[str, Any]]) -> list[Candidate]:
    """Return the candidates: those that learn nothing first, then those on features, then by published accuracies.

    Args:
        clip: the backbone.
        task: the task.
        configs: settings of a run of each method.
    """
    found = [make_candidate(clip, task, name, config) for name, config in configs.items()]
    return sorted(found, key=lambda one: (not one.cheap, one.learns, -PUBLISHED.get(one.method, 0.0)))


def needs_more(config: Mapping[str, Any]) -> bool:
    """Return whether a method needs more than labelled images, or adapts at test time."""
    method = config["method"]
    objective = method["objective"]
    return (
        method["test_time"] is not None
        or method["pseudo_labels"] is not None
        or (objective is not None and bool(objective_class(config).teachers_for(objective)))
    )


def make_candidate(clip: DualEncoder, task: Task, method: str, config: dict[str, Any]) -> Candidate:
    """Return a candidate, with what its adaptation says when it is built without images."""
    shape = (number_of_views(task), len(task.support), clip.width or 0)
    try:
        empty = placeholder_task(clip, task.class_names, task.templates, shape, task.words)
        adaptation = adaptation_maker(config)(clip, empty)
        model = AdaptedCLIP(clip, adaptation)
    except UserError as error:
        return Candidate(method, config, cheap=False, dropped=str(error))
    settings, capabilities = build_settings(config), adaptation.capabilities
    own = adaptation.has_parameters or capabilities.num_fitted_values or capabilities.fixed_classes is not None
    encodes = model.image_cut != "features" or (task.views is None and settings.epochs_for(task.shots) > 0)
    return Candidate(
        method,
        config,
        cheap=not encodes and model.text_cut == "features",
        learns=bool(own),
        images_a_step=min(settings.batch_size, len(task.support)) if encodes else 0,
        new_classes=capabilities.serves_others,
    )
