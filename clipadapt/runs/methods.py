"""Build the parts of a method from its settings, and find the methods that work with a backbone."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch

from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.composed import Composed
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.engine.settings import Settings
from clipadapt.engine.tracking import check_tracker
from clipadapt.errors import SettingsError, UserError, join_names
from clipadapt.features.loader import usable_cache
from clipadapt.interfaces import LabelledFeatures
from clipadapt.objectives.base import BackboneSpec, Objective
from clipadapt.paths import shorten
from clipadapt.tasks import TaskKind


def adaptation_maker(config: Mapping[str, Any]) -> Callable[[DualEncoder, Any], Adaptation]:
    """Return a function that builds the adaptation of composed settings; several parts are composed to one."""
    method, allowed = config["method"], config["allowed_targets"]

    def make(clip: DualEncoder, task: Any) -> Adaptation:
        nodes = {"adaptation": method["adaptation"], **method["also"]}
        parts = {
            name: configuration.build(node, clip, task, place="method.adaptation", allowed=allowed)
            for name, node in nodes.items()
        }
        return parts["adaptation"] if len(parts) == 1 else Composed(clip, task, parts)

    return make


def note_searched(adaptation: Adaptation, config: Mapping[str, Any]) -> None:
    """Warn if a setting differs from the method's own, and a search on the validation split replaces it.

    A searched value is in a buffer `[]` with the setting's name. Where something is trained, its first value counts.
    """
    name, node = config["method"]["name"], config["method"]["adaptation"]
    searches = adaptation.capabilities.needs_validation and not adaptation.has_parameters
    if not searches or name not in configuration.options("method", config["config_dir"]):
        return
    own = configuration.read_method(name, config["config_dir"])["method"]["adaptation"]
    searched = [key for key, value in adaptation.list_parts()[0].named_buffers() if not value.dim()]
    same = own.get("_target_") == node["_target_"]
    replaced = [f"method.adaptation.{key}" for key in searched if same and key in node and node[key] != own.get(key)]
    if replaced:
        warnings.warn(
            f"what you set as {join_names(replaced, len(replaced))} is replaced by what does best on the validation "
            f"split: method.adaptation.{adaptation.capabilities.validation_switch}=false keeps it",
            stacklevel=3,
        )


def build_backbone(config: Mapping[str, Any]) -> DualEncoder:
    """Load the backbone of composed settings.

    Raises:
        WeightsError: unknown or unusable weights.
    """
    node, allowed = config["backbone"], config["allowed_targets"]
    built: DualEncoder = configuration.build(node, place="backbone", allowed=allowed)
    return built


def usual_device(cpu: bool = False) -> str:
    """Return the device to compute on: a GPU if there is one, unless `cpu` says no."""
    return "cuda" if torch.cuda.is_available() and not cpu else "cpu"


def checked_device(device: str | None) -> str:
    """Return a device, the usual one if None, after a check that tensors can be made on it.

    Raises:
        UserError: they can't.
    """
    if device is None:
        return usual_device()
    try:
        float(torch.zeros((), device=device))
    except Exception as error:  # of as many kinds as there are devices
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"device={shorten(repr(device))} can't be used: {reason}") from error
    return device


def build_settings(config: Mapping[str, Any]) -> Settings:
    """Build the engine's settings of a run.

    Raises:
        SettingsError: an optimiser that refuses its settings.
    """
    settings: Settings = configuration.build(config["engine"], place="engine", allowed=config["allowed_targets"])
    try:
        settings.optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise SettingsError(f"engine.optimizer can't be made with its settings: {error}") from error
    return settings


def with_usable_cache(settings: Settings) -> Settings:
    """Return settings after a check of their disk cache, without it where the usual folder can't be written.

    Raises:
        WriteError: the folder that the user has named can't be written.
    """
    return replace(settings, cache=usable_cache(settings.cache, settings.cache_gb))


def training_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings below `engine` of a run to train, after a check of its disk cache and its tracker.

    Raises:
        WriteError: the folder that the user has named can't be written.
        SettingsError: the tracker isn't installed.
    """
    settings = build_settings(config)
    check_tracker(settings.tracker)
    return with_usable_cache(settings)


def build_test_time(config: Mapping[str, Any]) -> Any:
    """Build the method that adapts at test time; None if there is none."""
    node = config["method"]["test_time"]
    return (
        None if node is None else configuration.build(node, place="method.test_time", allowed=config["allowed_targets"])
    )


def build_test_time_with_teachers(config: Mapping[str, Any], clip: DualEncoder) -> Any:
    """Build the method that adapts at test time, with its teachers where the backbone is; None if there is none.

    Raises:
        UserError: a teacher without name or weights, or one that can't be loaded.
    """
    method = build_test_time(config)
    if method is not None:
        teachers = load_teachers(clip, method.teacher_specs, "method.test_time.teacher")
        method.teachers = [one.to(clip.device, clip.dtype) for one in teachers]
    return method


def build_kind(config: Mapping[str, Any]) -> TaskKind:
    """Build the kind of task of a run."""
    kind: TaskKind = configuration.build(config["kind"], place="kind", allowed=config["allowed_targets"])
    return kind


def objective_class(config: Mapping[str, Any]) -> type[Objective]:
    """Return the class of the method's objective; the base class where the method names none."""
    if config["method"]["objective"] is None:
        return Objective
    found: type[Objective] = configuration.target_at(
        config["method"]["objective"], "method.objective", config["allowed_targets"]
    )
    return found


def load_teachers(
    clip: DualEncoder, specs: Sequence[BackboneSpec], place: str = "method.objective.teachers"
) -> list[DualEncoder]:
    """Load the frozen backbones that an objective or a test-time method asks for, perhaps from the network.

    Args:
        clip: the run's backbone, which is its own teacher where one of them has its name and weights.
        specs: from `Objective.teachers_for` or `TestTimeMethod.teacher_specs`.
        place: dotted key of the specifications, for messages.

    Raises:
        UserError: a teacher without name or weights, or one that can't be loaded.
    """
    return [_load_teacher(clip, spec, place) for spec in specs]


def _load_teacher(clip: DualEncoder, spec: BackboneSpec, place: str) -> DualEncoder:
    if not spec.get("name") or "pretrained" not in spec:
        raise UserError(
            f"a teacher needs a name and pretrained weights (null: random ones), and {dict(spec)} lacks one"
        )
    if all(clip.source.get(key) == spec[key] for key in ("name", "pretrained")):
        return clip
    try:
        return clip.another(name=spec["name"], pretrained=spec["pretrained"])
    except UserError as error:
        raise UserError(f"in {place}: {error}") from error


def gradient_rule_and_average(config: Mapping[str, Any]) -> list[Any]:
    """Build the method's gradient rule and weight average; None for either that it lacks."""
    nodes = {key: config["method"][key] for key in ("gradient_rule", "average")}
    allowed = config["allowed_targets"]
    return [node and configuration.build(node, place=f"method.{key}", allowed=allowed) for key, node in nodes.items()]


def placeholder_task(
    clip: DualEncoder,
    class_names: list[str],
    templates: list[str],
    support_shape: Sequence[int],
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> SimpleNamespace:
    """Return a task to build an adaptation for without images: its support features `[V, N, D]` are zeros."""
    views, images, width = support_shape
    nothing = LabelledFeatures(
        torch.zeros(views, images, width, device=clip.device), torch.zeros(images, dtype=torch.long)
    )
    return SimpleNamespace(class_names=class_names, templates=templates, support=nothing, words=words)


def methods_for(clip: DualEncoder, config_dir: str | Path | None = None) -> list[str]:
    """Return the methods whose adaptations, as their YAML stands, find the points that they change in a backbone.

    Nothing is composed or built: YAML is read, and the adaptations' classes say which points they need.
    """
    return [name for name in configuration.options("method", config_dir) if _serves(clip, name, config_dir)]


def _serves(clip: DualEncoder, method: str, config_dir: str | Path | None) -> bool:
    try:
        for target, settings in configuration.list_adaptations(method, config_dir):
            for point in target.points_for(settings):
                tower, _, name = point.partition(".")
                clip.tower(tower).cut([name])
            if target.capabilities.all_tokens:
                clip.image_of_all_tokens.cut([])
    except UserError:
        return False
    return True
