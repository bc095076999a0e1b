"""The classifier and the adaptation of a finished run, loaded from its directory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.framing import Framing
from clipadapt.engine.memory import max_rows, texts_at_once
from clipadapt.errors import UserError, WeightsError
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.features.memory import budget
from clipadapt.runs.artifact import settings_file
from clipadapt.runs.methods import (
    adaptation_maker,
    build_backbone,
    build_kind,
    build_test_time_with_teachers,
    checked_device,
    placeholder_task,
)
from clipadapt.runs.model_hub import find_learned
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.result import Result, read_result
from clipadapt.runs.tasks import framing
from clipadapt.tasks import Head, TaskKind
from clipadapt.tasks.uncertainty import KnownScores

LearnedHead = tuple[Head, Any, TaskKind, Framing, KnownScores | None]


def learned_head(
    directory: Path,
    device: str,
    dtype: torch.dtype,
    config_dir: str | Path | None,
    memory: float | None = None,
    processes: int = 1,
    pretrained: str | None = None,
) -> LearnedHead:
    """Load the head of a finished run, its test-time method or None, its kind of task, and how it sees images.

    The last item is what its validation images say of further ones, if it had any.

    Args:
        directory: of the run.
        device: where to compute.
        dtype: number format of the backbone.
        config_dir: a folder of the user's own with modules that the run may name.
        memory: gigabytes that the text side may take if the method adapts at test time; None for half of the free
            memory.
        processes: number of processes that share the device, if it is a CPU.
        pretrained: a tag or a file of the backbone's weights on this machine; None for what the settings say.

    Raises:
        UserError: no finished run, or a target that isn't allowed.
        WeightsError: the backbone is not the one that the run was trained on.
    """
    result = read_result(directory)
    config = configuration.saved_settings(result.config, settings_file(directory), config_dir)
    clip = trained_backbone(directory, result.record, config, pretrained).to(device, dtype)
    return build_head(result, config, clip, memory, processes)


def build_head(
    result: Result, config: Mapping[str, Any], clip: DualEncoder, memory: float | None = None, processes: int = 1
) -> LearnedHead:
    """Build what `learned_head` returns on a backbone that is loaded; arguments and errors are those of it."""
    adaptation, class_names = learned_adaptation(result, config, clip), result.record["class_names"]
    test_time, rows, dtype = build_test_time_with_teachers(config, clip), None, clip.dtype
    if test_time is not None:
        check_teachers(test_time.teachers, result)
        free = budget(memory, clip.device, processes) / texts_at_once(adaptation, test_time)
        with torch.autocast(clip.device.type, dtype, enabled=dtype != torch.float32):
            rows = max_rows(clip, adaptation, class_names, free, MICRO_BATCH, MICRO_BATCH)
    kind = build_kind(config)
    return kind.head(clip, adaptation, class_names, rows), test_time, kind, framing(config), known_scores(result, clip)


def check_teachers(teachers: Sequence[DualEncoder], result: Result) -> None:
    """Check that the backbones that a test-time method needs are those that the run was measured with.

    Raises:
        WeightsError: there are other weights here.
    """
    expected = {one["fingerprint"] for one in result.record.get("teachers", [])}
    for one in teachers:
        if one.fingerprint not in expected:
            raise WeightsError(
                f"this run was measured with other weights of {one.source['name']}, the backbone at "
                "method.test_time.teacher, than are here: load the weights that it was measured with"
            )


@dataclass(frozen=True)
class LearnedModel:
    """What a run learned, on a backbone that is loaded: predictors are made of it, and pickles of them hold it.

    Attributes:
        result: of the run, without its backbone.
        config: its settings.
        clip: the backbone that it was trained on.
        class_names: those asked for with `for_classes`, by class if with names for CLIP; None for the run's.
    """

    result: Result
    config: Mapping[str, Any]
    clip: DualEncoder
    class_names: list[str] | dict[str, list[str]] | None = None

    def predictor(self) -> Predictor:
        """Return a predictor of its own, on the same backbone."""
        head = build_head(self.result, self.config, self.clip)
        made = Predictor(*head, learned=replace(self, class_names=None))
        return made if self.class_names is None else made.for_classes(self.class_names)


def load_predictor(
    source: str | Path,
    device: str | None = None,
    config_dir: str | Path | None = None,
    pretrained: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Predictor:
    """Load the predictor of a finished run or of an artifact; arguments and errors as of `clipadapt.load`."""
    directory = find_learned(source, revision, token)
    device = checked_device(device)
    result = read_result(directory)
    config = configuration.saved_settings(result.config, settings_file(directory), config_dir)
    clip = trained_backbone(directory, result.record, config, pretrained).to(device)
    return replace(learned_from(result, config, clip), class_names=result.record.get("for_classes")).predictor()


def learned_from(result: Result, config: Mapping[str, Any], clip: DualEncoder) -> LearnedModel:
    """Return what a run learned; a pickle of it has the backbone once."""
    return LearnedModel(replace(result, clip=None), config, clip)


def trained_backbone(
    directory: Path, record: Mapping[str, Any], config: Mapping[str, Any], pretrained: str | None = None
) -> DualEncoder:
    """Load the backbone that a finished run was trained on.

    Args:
        directory: of the run.
        record: as of its `Result`.
        config: its settings.
        pretrained: a tag or a file of its weights on this machine; None for what the settings say.

    Raises:
        WeightsError: there are other weights here, or none.
    """
    if pretrained is not None:
        config = {**config, "backbone": {**config["backbone"], "pretrained": pretrained}}
    elif (file := record.get("weights_file")) is not None:
        raise WeightsError(
            f"{directory} was learned on a backbone ({config['backbone']['name']}) whose weights were the file {file} "
            "of whoever packed it: get that file, and give it as pretrained=FILE"
        )
    clip, expected = build_backbone(config), record["backbone"]["fingerprint"]
    if clip.fingerprint != expected:
        raise WeightsError(
            f"{directory} was learned on another backbone ({expected}) than {clip.source['name']} with weights "
            f"{clip.source.get('pretrained')} is here ({clip.fingerprint}): load the weights it was learned on"
        )
    return clip


def known_scores(result: Result, clip: DualEncoder) -> KnownScores | None:
    """Return what a run's validation images say of further images; None if it had none."""
    found = result.metrics.get("known_scores")
    if found is None:
        return None
    return KnownScores(found["truth"], found["matching"], clip.scale, found["unseen"], found.get("temperature"))


def learned_adaptation(
    result: Result, config: Mapping[str, Any], clip: DualEncoder, templates: list[str] | None = None
) -> Adaptation:
    """Build the adaptation of a finished run and load its learned tensors.

    Args:
        result: of the run.
        config: its settings.
        clip: the backbone that it was trained on, on its device.
        templates: of class names, in place of those that it was trained with.

    Raises:
        UserError: the tensors don't fit the adaptation, or aren't finite.
    """
    record = result.record
    names, words = record["class_names"], record.get("words", {})
    task = placeholder_task(clip, names, templates or record["templates"], record["support_shape"], words)
    adaptation = adaptation_maker(config)(clip, task)
    problem = misfit(result.tensors, adaptation.state_dict())
    if problem:
        raise UserError(
            f"the learned tensors of this run ({config['method']['name']} on {record['task']}) don't fit its settings "
            f"({problem}): one of its files was changed; compute the run again, or get it again"
        )
    adaptation.load_state_dict(result.tensors)
    return adaptation.to(clip.device)


def misfit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Return which tensor has another name, shape or type than expected, or isn't finite; None if all fit."""
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    if missing or extra:
        return f"{missing[0]} is missing" if missing else f"{extra[0]} doesn't belong to it"
    for name, value in found.items():
        mine, theirs = (f"{list(x.shape)} of {x.dtype}" for x in (value, expected[name]))
        if mine != theirs:
            return f"{name} is {mine} in place of {theirs}"
        if value.is_floating_point() and not value.isfinite().all():
            return f"{name} is not finite"
    return None
