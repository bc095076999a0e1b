"""What a notebook calls; the command line calls the same functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from clipadapt import config as configuration
from clipadapt.backbone.open_clip import CLIP
from clipadapt.console import first_process
from clipadapt.data import Task
from clipadapt.errors import UserError
from clipadapt.features.loader import check_cache
from clipadapt.predictor import Predictor
from clipadapt.report import summary
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.result import Result, read_result
from clipadapt.runs.train import (
    data_change_note,
    learned_classifier,
    settings_of,
    task_of,
    train_and_evaluate,
    validated_images,
)

RESERVED_KEYS = ("backbone", "data", "shots", "classes", "seed")
"""Settings that a task and a backbone bring with them."""

Load = Callable[[dict[str, Any], Console], tuple[CLIP, Task]]


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
    source: str = "digits",
    shots: int = 16,
    seed: int = 1,
    classes: str = "all",
    config_dir: str | Path | None = None,
    **options: Any,
) -> Task:
    """A few-shot task.

    Args:
        source: a name in conf/data ("digits", "drawn", "folder", "unlabelled", "oxford_pets" …) or in `config_dir`.
        shots: images a class to learn from.
        seed: draws them.
        classes: "base" for the first half of the classes, tested on both halves as "base" and "new".
        config_dir: a folder of settings of your own.
        options: of the source, as in conf/data: `root`, `name`, `templates`, `views` ….

    Raises:
        UserError: an unknown source or option, or images that can't be used.
    """
    overrides = [f"data={source}", f"shots={shots}", f"seed={seed}", configuration.setting("classes", classes)]
    overrides += [configuration.setting(f"data.{key}", value) for key, value in options.items()]
    config = configuration.compose(overrides, config_dir)
    return validated_images(task_of(config), config)


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
    if not isinstance(backbone, CLIP) or not isinstance(task, Task):
        raise UserError("finetune takes a backbone from load_backbone(…) and a task from load_task(…), not their names")
    for text in overrides:
        if text.lstrip("+~").split("=")[0].split(".")[0] in RESERVED_KEYS:
            raise UserError(f"'{text}' belongs to the task or the backbone: give it to load_task or load_backbone")
    settings = [f"method={method}", f"shots={task.shots}", f"seed={task.seed}", f"classes={task.classes}"]
    settings += [configuration.setting(f"engine.{key}", value) for key, value in engine.items()]
    config = configuration.compose([*settings, *overrides], config_dir)
    check_cache(settings_of(config))
    config |= {"backbone": backbone.source, "data": task.origin or {"name": task.name}}
    if config["method"]["pseudo_labels"] is not None:
        task = validated_images(task, config)  # load_task has seen the whole pool only where it has no labels
    return train_and_evaluate(config, backbone, task, None, Console(quiet=True))


def load_backbone_and_task(config: dict[str, Any], console: Console) -> tuple[CLIP, Task]:
    """The backbone and the task of composed settings.

    Args:
        config: the settings.
        console: where to show how far looking at the images is.

    Raises:
        UserError: unusable weights or images.
    """
    task = task_of(config)
    backbone = CLIP.load(**config["backbone"])
    return backbone, validated_images(task, config, console)  # last, as it looks at every image file


def run(
    config: dict[str, Any],
    directory: Path,
    console: Console | None = None,
    load: Load = load_backbone_and_task,
) -> Result:
    """Do the run that composed settings describe, in its directory; go on with an unfinished one, show a finished one.

    Args:
        config: the settings.
        directory: of the run.
        console: where to print.
        load: yields backbone and task, if there is anything to compute.

    Raises:
        UserError: a directory with something else in it, unusable images or weights, a loss that isn't finite.
    """
    console = console or Console()
    target = RunDirectory(directory)
    if first_process():
        target.restore()
    if target.path.exists():
        target.open(config, configuration.identity)
    if target.finished and not config["rerun"]:
        console.print(f"This run is finished (rerun=true computes it again): {directory}")
        result = read_result(directory)
        if not console.quiet and (note := data_change_note(config, result.record)):
            console.print(f"note: {note}")
        summary.show_result(console, result.metrics)
        return result
    check_cache(settings_of(config))
    backbone, task = load(config, console)
    if not target.finished:
        result = train_and_evaluate(config, backbone, task, target, console)
    else:
        result = _rerun(config, backbone, task, target, console)
    if first_process():
        console.print(f"Saved in {directory}")
    return result


def _rerun(config: dict[str, Any], backbone: CLIP, task: Task, target: RunDirectory, console: Console) -> Result:
    """Compute a finished run again, beside it until all is there."""
    fresh = target.beside()
    if first_process():
        fresh.remove()
    result = train_and_evaluate(config, backbone, task, fresh, console)
    if first_process():
        target.replace_by(fresh)
    return result


def load(directory: str | Path, device: str | None = None, config_dir: str | Path | None = None) -> Predictor:
    """The classifier that a run learned; it adapts to what it sees where the run's method does at test time.

    Args:
        directory: of a finished run.
        device: where to compute; a GPU where there is one, unless told.
        config_dir: a folder of your own with the adaptation's module. A run can't name modules itself: it may be
            somebody else's.

    Raises:
        UserError: no run is there, one that isn't finished, or its backbone is not the one it was learned on.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(*learned_classifier(Path(directory), device, torch.float32, config_dir))


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
        UserError: no finished run, tensors that belong to the run's classes and a task of others, nothing to test on,
            or a method that adapts along a stream, in several processes.
    """
    console = console or Console()
    run = FinishedRun(directory, config_dir, configuration.compose()["engine"]["cache"])
    metrics = run.measure(run.task(data, console), console)
    if data is None and (note := data_change_note(run.config, run.record)):
        console.print(f"note: {note}")
    summary.show_tests(console, metrics)
    return metrics
