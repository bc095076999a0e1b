"""Fits of a method to features in memory, by the engine that fits it to images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from clipadapt import config as configuration
from clipadapt.api import check_method_overrides
from clipadapt.data.tasks import Split, Task
from clipadapt.engine.accelerator import accelerator_for
from clipadapt.engine.fit import TrainState
from clipadapt.engine.preparing import prepare_run
from clipadapt.engine.run import Run
from clipadapt.errors import InputError
from clipadapt.runs.learned import misfit
from clipadapt.runs.methods import (
    adaptation_maker,
    build_settings,
    gradient_rule_and_average,
    methods_for,
    objective_class,
    placeholder_task,
)
from clipadapt.runs.train import build_objective, finish_fit
from clipadapt.sklearn.learned import PLACE, LearnedState
from clipadapt.sklearn.precomputed import NAME, PrecomputedEncoder, make_precomputed_loader
from clipadapt.tasks import Classifier
from clipadapt.threads import limited_threads

CLASS_WEIGHTS = "class_weights"


@dataclass(frozen=True)
class GivenFeatures:
    """Features and class indices to learn from, and those to choose on.

    Attributes:
        features: `[N, D]`.
        labels: class indices of them.
        weights: weight of each of them; None if all count the same.
        validation: features and class indices that a method's choice is made on; may be empty.
    """

    features: Tensor
    labels: list[int]
    weights: list[float] | None
    validation: tuple[Tensor, list[int]]


@lru_cache(maxsize=32)
def compose_feature_settings(method: str, overrides: Sequence[str], config_dir: str | None) -> dict[str, Any]:
    """Return the settings of a run of a method that computes on features alone; nobody may change them.

    Raises:
        UserError: settings that are unknown or don't fit, or a method that needs images, teachers or test images.
    """
    check_method_overrides(overrides)
    config = configuration.compose(overrides, config_dir, {"method": method, "engine.workers": 0})
    named = config["method"]
    beyond = {"adapts at test time": named["test_time"], "labels images itself": named["pseudo_labels"]}
    reasons = [reason for reason, setting in beyond.items() if setting is not None]
    usable = methods_for(PrecomputedEncoder(torch.zeros(2, 4), 1.0), config_dir)
    if method not in usable:
        reasons.append("changes the towers")
    elif objective_class(config).teachers_for(named["objective"]):
        reasons.append("needs a teacher that sees the images")
    if reasons:
        raise InputError(
            f"method {method} {' and '.join(reasons)}, and can't be fitted to {NAME}: CLIPClassifier fits it to images"
        )
    return config


def needs_validation(config: dict[str, Any], clip: PrecomputedEncoder, images: int) -> bool:
    """Return whether a method makes a choice on validation images."""
    task = placeholder_task(clip, class_names(clip), ["{}"], (1, images, clip.width or 0))
    return adaptation_maker(config)(clip, task).capabilities.needs_validation


def class_names(clip: PrecomputedEncoder) -> list[str]:
    """Return a name for each class, which nothing reads."""
    return [f"class {place}" for place in range(len(clip.text_features("")))]


def fit_to_features(
    config: dict[str, Any], clip: PrecomputedEncoder, samples: GivenFeatures, seed: int
) -> LearnedState:
    """Fit a method to features, and return what it has learned.

    Args:
        config: of `compose_feature_settings`.
        clip: the encoder, with the text features.
        samples: to learn from.
        seed: of whatever is drawn.

    Raises:
        UserError: the method can't be fitted to them.
        DivergenceError: a loss that isn't finite.
    """
    task = make_feature_task(class_names(clip), samples, seed)
    with limited_threads(clip.parameters), torch.random.fork_rng(devices=[]):
        run = prepare_feature_run(config, clip, task)
        objective = build_objective(config, run, [])
        run.fit(objective, run.support(), TrainState(), lambda state: None, *gradient_rule_and_average(config))
        finish_fit(run, config)
    tensors = {f"learned.{name}": value for name, value in run.head.adaptation.state_dict().items()}
    tensors[CLASS_WEIGHTS] = clip.text_features("")[:, 0]
    return LearnedState(config, {"scale": clip.scale, "images": len(samples.labels)}, tensors)


def prepare_feature_run(config: dict[str, Any], clip: PrecomputedEncoder, task: Task) -> Run:
    """Return the run of a method on features; arguments and errors as of `fit_to_features`."""
    return prepare_run(
        clip,
        task,
        adaptation_maker(config),
        build_settings(config),
        objective=objective_class(config),
        imbalance=config["method"]["imbalance"],
        loader_maker=make_precomputed_loader,
    )


def make_feature_task(names: list[str], samples: GivenFeatures, seed: int) -> Task:
    """Return the task of learning from features."""
    most = max(samples.labels.count(label) for label in {*samples.labels})
    support = Split(cast(Any, samples.features), samples.labels, weights=samples.weights)
    features, labels = samples.validation
    return Task(
        name=NAME,
        class_names=names,
        templates=["{}"],
        shots=most,
        seed=seed,
        views=0,
        support=support,
        validation=Split(cast(Any, features), labels),
        tests={},
        support_indices=[],
        validation_indices=[],
    )


def build_classifier(state: LearnedState, config_dir: str | None) -> Classifier:
    """Return the classifier of features that `fit_to_features` has learned.

    Raises:
        UserError: the settings or the tensors aren't those of a fit.
    """
    config = configuration.saved_settings(state.settings, Path(PLACE), config_dir)
    clip = PrecomputedEncoder(state.tensors[CLASS_WEIGHTS].clone(), state.record["scale"])
    clip.to(accelerator_for(build_settings(config)).device)
    names, width = class_names(clip), clip.width or 0
    task = placeholder_task(clip, names, ["{}"], (1, state.record["images"], width))
    adaptation = adaptation_maker(config)(clip, task)
    learned = {name.removeprefix("learned."): value for name, value in state.tensors.items() if name != CLASS_WEIGHTS}
    if problem := misfit(learned, adaptation.state_dict()):
        raise InputError(f"{PLACE} is damaged ({problem}): fit it again, and pickle that")
    adaptation.load_state_dict(learned)
    return Classifier(clip, adaptation.to(clip.device), names).eval()
