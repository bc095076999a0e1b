"""What a notebook calls; the command line calls the same functions."""

import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from clipadapt import __version__
from clipadapt import config as configuration
from clipadapt.adaptations.base import Adaptation, Composed
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier
from clipadapt.console import first_process
from clipadapt.data.tasks import Task, check, make_task
from clipadapt.engine.fit import Diverged, Progress
from clipadapt.engine.run import DTYPES, Plan, Run, accelerator_for, measure, peak_memory_mb
from clipadapt.engine.run_directory import RunDirectory
from clipadapt.errors import UserError
from clipadapt.predictors import Predictor
from clipadapt.report import progress as bars
from clipadapt.report import summary

GIVEN = ("backbone", "data", "shots", "seed")
"""Settings that a task and a backbone bring with them."""
SELECTION = "none: the last epoch"


def load_backbone(name: str = "tiny", pretrained: str | None = "default", seed: int = 0) -> CLIP:
    """A frozen CLIP.

    Args:
        name: an open_clip model name, or "tiny", which ships with the package.
        pretrained: a pretrained tag of open_clip, a checkpoint file, or None for random weights; "default" takes what
            conf/backbone has for the name.
        seed: draws random weights.

    Raises:
        UserError: unknown name or weights, or weights that can't be fetched.
    """
    if pretrained == "default":
        known = configuration.options("backbone")
        if name not in known:
            raise UserError(f"say which weights of backbone '{name}' you want: pretrained=… (None for random ones)")
        pretrained = configuration.compose([f"backbone={name}"])["backbone"]["pretrained"]
    return CLIP.load(name, pretrained, seed)


def load_task(
    source: str = "digits", shots: int = 16, seed: int = 1, config_dir: str | Path | None = None, **options: Any
) -> Task:
    """A few-shot task.

    Args:
        source: "digits", "drawn", "folder", or one of `config_dir`.
        shots: images a class to learn from.
        seed: draws them.
        config_dir: a folder of settings of your own.
        options: of the source, as in conf/data: `root`, `name`, `templates`, `views` ….

    Raises:
        UserError: an unknown source or option, or images that can't be used.
    """
    overrides = [f"data={source}", f"shots={shots}", f"seed={seed}"]
    overrides += [setting(f"data.{key}", value) for key, value in options.items()]
    return _task(configuration.compose(overrides, config_dir))


def _task(config: Mapping[str, Any]) -> Task:
    """The task that composed settings describe, its images looked at."""
    node = config["data"]
    if "_target_" not in node:
        raise UserError(f"the task '{node['name']}' was made by hand and can't be loaded again: say which data to use")
    plain = {key: value for key, value in node.items() if key != "views"}
    source = configuration.build(plain, allowed=config["allowed_targets"])
    task = make_task(source, config["shots"], config["seed"], node["views"])
    check(task)
    return replace(task, origin=dict(node))


def setting(key: str, value: Any) -> str:
    """A Python value as a setting of the command line."""
    return f"{key}={spelled(value)}"


def spelled(value: Any) -> str:
    """A Python value in the grammar of the command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spelled(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + (found[2] and r"\""), str(value))
    return f'"{escaped}"'


@dataclass(frozen=True)
class Result:
    """What a run yielded.

    Attributes:
        metrics: `accuracy`, `zero_shot_accuracy` and `calibration_error` as fractions of the test set; `per_class`,
            `tests`, learned `parameters` and their `share` of the backbone, `seconds`, `peak_memory_mb`, `processes`.
        history: loss, training accuracy and learning rate of each epoch.
        config: the settings of the run.
        record: task, backbone, plan and versions.
        tensors: what was learned, by name.
    """

    metrics: dict[str, Any]
    history: list[dict[str, float]]
    config: dict[str, Any]
    record: dict[str, Any]
    tensors: dict[str, Tensor]

    def save(self, directory: str | Path) -> Path:
        """Write the run directory, for `clipadapt.load` and the command line.

        Raises:
            UserError: the directory holds something else.
        """
        target = RunDirectory(directory)
        target.open(self.config, configuration.identity)
        summary.pictures(self.metrics, self.history, self.record["class_names"], target.path / "pictures")
        target.finish(self.tensors, self.record, self.history, self.metrics)
        return target.path


def finetune(
    backbone: CLIP,
    task: Task,
    method: str = "coop",
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    **engine: Any,
) -> Result:
    """Adapt a backbone to a task, and measure it on the task's test sets.

    Args:
        backbone: from `load_backbone`; it is moved to the device.
        task: from `load_task`.
        method: one of conf/method, or of `config_dir`.
        overrides: settings as on the command line, such as "method.adaptation.n_ctx=4".
        config_dir: a folder of settings of your own.
        engine: settings below `engine`, such as `epochs=50`.

    Raises:
        UserError: unknown or unfitting settings; a loss that is not finite.
    """
    for text in overrides:
        if text.lstrip("+~").split("=")[0].split(".")[0] in GIVEN:
            raise UserError(f"'{text}' belongs to the task or the backbone: give it to load_task or load_backbone")
    settings = [f"method={method}", f"shots={task.shots}", f"seed={task.seed}"]
    settings += [setting(f"engine.{key}", value) for key, value in engine.items()]
    config = configuration.compose([*settings, *overrides], config_dir)
    config |= {"backbone": backbone.source, "data": task.origin or {"name": task.name}}
    return _run(config, backbone, task, None, Console(quiet=True))


def run(config: dict[str, Any], directory: Path, console: Console | None = None) -> Result:
    """Do the run that composed settings describe, in its directory; go on with an unfinished one, show a finished one.

    Raises:
        UserError: a directory with something else in it, unusable images or weights, a loss that isn't finite.
    """
    console = console or Console()
    target = RunDirectory(directory)
    if target.path.exists():
        target.open(config, configuration.identity)
    if target.finished and not config["rerun"]:
        console.print(f"This run is finished (rerun=true computes it again): {directory}")
        result = read_result(directory)
        summary.show_result(console, result.metrics)
        return result
    task = _task(config)
    backbone = CLIP.load(**config["backbone"])
    if not target.finished:
        return _run(config, backbone, task, target, console)
    fresh = target.beside()
    if first_process():
        fresh.remove()
    result = _run(config, backbone, task, fresh, console)
    if _main():
        target.replace_by(fresh)
    return result


def _run(config: dict[str, Any], clip: CLIP, task: Task, target: RunDirectory | None, console: Console) -> Result:
    began = time.monotonic()
    allowed = config["allowed_targets"]
    settings = configuration.build(config["engine"], allowed=allowed)
    objective = configuration.build(config["method"]["objective"], allowed=allowed)
    prepared = Run.prepare(clip, task, adaptation_maker(config), settings)
    console = console if _main() else Console(quiet=True)
    plan = prepared.plan()
    summary.show_plan(console, task, asdict(plan))
    progress = _begin(prepared, config, target)
    with bars.epochs(console, progress.epoch, settings.epochs_for(task.shots) if plan.parameters else 0) as advance:
        after = _after_epoch(target, settings.checkpoint_seconds, advance)
        try:
            prepared.fit(objective, progress, after)
        except Diverged as error:
            raise _diverged(error, progress, target) from None
    metrics = measure(prepared) | {
        "parameters": plan.parameters,
        "share": plan.share,
        "fit_seconds": progress.seconds,
        "seconds": time.monotonic() - began,
        "peak_memory_mb": peak_memory_mb(prepared.accelerator.device),
        "processes": prepared.accelerator.num_processes,
        "selection": SELECTION,
    }
    tensors = {name: value.detach().cpu() for name, value in prepared.classifier.adaptation.state_dict().items()}
    result = Result(metrics, progress.history, config, _record(prepared, plan), tensors)
    if target is not None and _main():
        result.save(target.path)
    prepared.accelerator.wait_for_everyone()
    summary.show_result(console, metrics)
    if target is not None:
        console.print(f"Saved in {target.path}")
    return result


def adaptation_maker(config: Mapping[str, Any]) -> Callable[[CLIP, Any], Adaptation]:
    """What builds the adaptation of composed settings, composed where there are several."""
    method, allowed = config["method"], config["allowed_targets"]

    def make(clip: CLIP, task: Any) -> Adaptation:
        nodes = {"adaptation": method["adaptation"], **method["also"]}
        parts = {name: configuration.build(node, clip, task, allowed=allowed) for name, node in nodes.items()}
        return parts["adaptation"] if len(parts) == 1 else Composed(parts)

    return make


def _begin(prepared: Run, config: dict[str, Any], target: RunDirectory | None) -> Progress:
    """Make the run directory, or find out how far the run had come in it."""
    if target is None:
        return Progress()
    with prepared.accelerator.main_process_first():
        target.open(config, configuration.identity)
    return target.load_checkpoint(prepared.accelerator.device)


def _after_epoch(
    target: RunDirectory | None, seconds: float, advance: Callable[[Mapping[str, float]], None]
) -> Callable[[Progress], None]:
    saved = time.monotonic()

    def after(progress: Progress) -> None:
        nonlocal saved
        advance(progress.history[-1])
        if target is not None and _main() and time.monotonic() - saved >= seconds:
            target.save_checkpoint(progress)
            saved = time.monotonic()

    return after


def _diverged(error: Diverged, progress: Progress, target: RunDirectory | None) -> UserError:
    """Keep the last good state; say where it is."""
    if target is None or not progress.epoch:
        return error
    if _main():
        target.save_checkpoint(progress)
    return UserError(f"{error}; the state before is in {target.path / 'checkpoint.pt'}")


def _record(prepared: Run, plan: Plan) -> dict[str, Any]:
    task, clip = prepared.task, prepared.clip
    packages = ("torch", "open_clip_torch", "accelerate", "torchmetrics", "hydra-core", "peft")
    return {
        "task": task.name,
        "class_names": task.class_names,
        "templates": task.templates,
        "shots": task.shots,
        "seed": task.seed,
        "support_indices": task.support_indices,
        "validation_indices": task.validation_indices,
        "backbone": {**clip.source, "fingerprint": clip.fingerprint},
        "plan": asdict(plan),
        "device": str(prepared.accelerator.device),
        "versions": {
            "clipadapt": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _main() -> bool:
    """Whether this is the first, or the only, process."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def read_result(directory: str | Path) -> Result:
    """A finished run, read from its directory.

    Raises:
        UserError: no run is there, or one that isn't finished.
    """
    source = RunDirectory(directory)
    metrics = source.result()
    return Result(metrics, source.history(), source.config(), source.record(), source.tensors())


def load(directory: str | Path, device: str | None = None, config_dir: str | Path | None = None) -> Predictor:
    """The classifier that a run learned.

    Args:
        directory: of a finished run.
        device: where to compute; a GPU where there is one, unless told.
        config_dir: a folder of your own with the adaptation's module. A run can't name modules itself: it may be
            somebody else's.

    Raises:
        UserError: no run is there, one that isn't finished, or its backbone is not the one it was learned on.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(_classifier(Path(directory), device, torch.float32, config_dir))


def _classifier(directory: Path, device: str, dtype: torch.dtype, config_dir: str | Path | None) -> Classifier:
    result = read_result(directory)
    config = {**result.config, "allowed_targets": configuration.own_modules(config_dir)}
    clip = CLIP.load(**result.config["backbone"])
    expected = result.record["backbone"]["fingerprint"]
    if clip.fingerprint != expected:
        raise UserError(
            f"{directory} was learned on another backbone ({expected}) than {clip.source['name']} with weights "
            f"{clip.source['pretrained']} is here ({clip.fingerprint}): load the weights it was learned on"
        )
    clip.to(device, dtype)
    task = SimpleNamespace(class_names=result.record["class_names"], templates=result.record["templates"])
    adaptation = adaptation_maker(config)(clip, task)
    adaptation.load_state_dict(result.tensors)
    return Classifier(clip, adaptation.to(clip.device), task.class_names)


def evaluate_run(
    directory: str | Path,
    data: dict[str, Any] | None = None,
    console: Console | None = None,
    config_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Measure a finished run again, on its own test sets or on another task's.

    Args:
        directory: of the run.
        data: settings below `data` of another task; its class names take the place of the run's.
        console: where to print.
        config_dir: a folder of your own with the adaptation's module.

    Returns:
        The figures, as in a run's `metrics`.

    Raises:
        UserError: no finished run, or tensors that belong to the run's classes and a task of others.
    """
    config = {**read_result(directory).config, "allowed_targets": configuration.own_modules(config_dir)}
    settings = configuration.build(config["engine"], allowed=config["allowed_targets"])
    accelerator = accelerator_for(settings)
    classifier = _classifier(Path(directory), str(accelerator.device), DTYPES[settings.precision], config_dir)
    task = _task(config if data is None else {**config, "data": data})
    if task.class_names != classifier.class_names:
        classifier = classifier.for_classes(task.class_names)
    metrics = measure(Run(accelerator, classifier.clip, task, classifier, settings))
    summary.show_tests(console or Console(), metrics)
    return metrics
