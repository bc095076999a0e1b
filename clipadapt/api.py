"""The functions that a notebook calls; the command line does the same."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.open_clip import pretrained_tags
from clipadapt.config.check import TASK
from clipadapt.config.given import plain
from clipadapt.data import Task
from clipadapt.data.given_data_sets import is_data_set, keep
from clipadapt.data.given_tables import is_data_frame, is_pairs, keep_data_frame, keep_pairs
from clipadapt.errors import DataError, UserError, WeightsError
from clipadapt.exports.examples import find_examples
from clipadapt.exports.export import Exported, check_place, export_predictor
from clipadapt.exports.formats import find_format, read_options
from clipadapt.paths import checked_path, shorten
from clipadapt.report.rows import Row
from clipadapt.runs.competing import check_competing
from clipadapt.runs.finished import evaluate_finished
from clipadapt.runs.learned import load_predictor
from clipadapt.runs.methods import build_backbone, training_settings
from clipadapt.runs.model_hub import find_learned
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.result import Result
from clipadapt.runs.tasks import build_task, validated_images
from clipadapt.runs.train import train_and_evaluate
from clipadapt.studies.candidates import needs_more
from clipadapt.studies.choice import Choice, choose_and_fit
from clipadapt.studies.compare import run_study
from clipadapt.studies.grid import ALL, AUTO, DEFAULT_MINUTES, check_minutes
from clipadapt.studies.protocols import comparison
from clipadapt.tasks import task_kind

__all__ = [
    "Predictor",
    "UserError",
    "choose",
    "compare",
    "evaluate",
    "export",
    "finetune",
    "load",
    "load_backbone",
    "load_task",
]

RESERVED_KEYS = ("backbone", "kind", "data", "shots", "classes", "seed", "task")
"""Settings that a task and a backbone bring with them."""


def load_backbone(
    name: str = "tiny",
    pretrained: str | None = "default",
    seed: int | None = None,
    config_dir: str | Path | None = None,
    **options: Any,
) -> DualEncoder:
    """Load a frozen backbone.

    Args:
        name: a name in conf/backbone, such as "tiny", which ships with the package, or in `config_dir`; or that of any
            open_clip model.
        pretrained: a pretrained tag of open_clip, a checkpoint file, or None for random weights; "default" takes what
            conf/backbone has for the name.
        seed: draws random weights; 0 where None.
        config_dir: a folder of your own with the YAML and the module of a family of backbones.
        options: further settings of such a family.

    Raises:
        WeightsError: unknown name or weights, or weights that can't be fetched.

    >>> load_backbone().source["name"]
    'tiny'
    """
    return build_backbone(backbone_settings(name, pretrained, seed, config_dir, **options))


def backbone_settings(
    name: str, pretrained: str | None, seed: int | None = None, config_dir: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """Compose the settings of a run with a backbone; arguments and errors as of `load_backbone`."""
    if not isinstance(name, str):
        raise WeightsError(f"name must be text, as in load_backbone('tiny'), and {shorten(repr(name))} is not")
    files = configuration.options("backbone", config_dir)
    known = name in files
    given = {
        **({} if isinstance(pretrained, str) and pretrained == "default" else {"pretrained": pretrained}),
        **options,
    }
    given |= {} if seed is None else {"seed": seed}
    if not known and "pretrained" not in given:
        tags = ", ".join(pretrained_tags(name, files))
        raise WeightsError(
            f"say which weights of backbone '{name}' you want: pretrained=… ({f'{tags}; ' if tags else ''}None for "
            "random ones)"
        )
    values = {"backbone": name if known else "open_clip"}
    values |= {f"backbone.{key}": value for key, value in ({} if known else {"name": name}).items()}
    values |= {f"backbone.{key}": value for key, value in given.items()}
    return configuration.compose((), config_dir, values)


def load_task(
    source: Any = "digits",
    shots: int | str = 16,
    seed: int = 1,
    classes: str = "all",
    kind: str = "classification",
    config_dir: str | Path | None = None,
    **options: Any,
) -> Task:
    """Load a few-shot task.

    Args:
        source: a name in conf/data ("digits", "drawn", "folder", "unlabelled", "oxford_pets" …) or in `config_dir`; or
            a `Dataset` or `DatasetDict` of the library datasets; or a table of pandas with the columns of data=csv
            (`path` or `image`, `label`, maybe `split`); or a list of pairs of an image (a path, a PIL image, an array)
            and its label.
        shots: labelled images per class, or "all".
        seed: draws them.
        classes: "base" for the first half of the classes, tested on both halves as "base" and "new".
        kind: a name in conf/kind or in `config_dir`: what the answer is.
        config_dir: a folder with YAML files and modules of your own.
        options: of the source, as in conf/data: `root`, `name`, `templates` …; `views`, `augment`, `resize`,
            `pad_colour`, `bands`, `value_range` and `skip_broken`, as in conf/task. Values are taken as they are; text
            needs no quotes.

    Raises:
        SettingsError: an unknown source or option.
        DataError: images that can't be used.

    >>> len(load_task("digits", shots=2).support)
    20
    """
    if is_data_set(source):
        source, options = "huggingface", {"name": keep(source), **options}
    elif is_data_frame(source):
        source, options = "csv", keep_data_frame(source, options)
    elif is_pairs(source):
        source, options = "csv", keep_pairs(source, options)
    elif not isinstance(source, str):
        raise DataError(
            "the first argument of load_task must be the name of a source, such as 'folder', a table of pandas, a "
            f"Dataset, or a list of pairs of an image and its label, and it is of the type {type(source).__name__}"
            + (" without any" if isinstance(source, list | tuple) and not source else "")
        )
    values = {"data": source, "kind": kind, "shots": shots, "seed": seed, "classes": classes}
    values |= {f"{'task' if key in TASK else 'data'}.{key}": value for key, value in options.items()}
    config = configuration.compose((), config_dir, values)
    return validated_images(build_task(config), config)


def finetune(
    backbone: DualEncoder,
    task: Task,
    method: str = "coop",
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    console: Console | None = None,
    from_run: str | Path | None = None,
    **engine: Any,
) -> Result:
    """Adapt a backbone to a task and evaluate it on the task's test sets.

    Args:
        backbone: from `load_backbone`; it is moved to the device.
        task: from `load_task`.
        method: one of conf/method, or of `config_dir`; "auto" for the one that `choose` takes.
        overrides: settings as on the command line, such as "method.adaptation.n_ctx=4".
        config_dir: a folder with YAML files and modules of your own.
        console: where to print, with progress bars; None prints nothing.
        from_run: a finished run whose learned tensors the fit starts with, `from=` on the command line.
        engine: settings below `engine`, such as `epochs=50`.

    Raises:
        SettingsError: settings that are unknown or don't fit the backbone or the task.
        DivergenceError: a loss that is not finite.

    >>> result = finetune(load_backbone(), load_task("digits", shots=1), "zero_shot", cpu=True, workers=0)
    >>> result.metrics["parameters"]
    0
    """
    if method == AUTO:
        return choose(backbone, task, overrides=overrides, config_dir=config_dir, console=console, **engine).result
    _check_given(backbone, task, "finetune", overrides)
    config = run_settings(backbone, task, method, overrides, config_dir, engine)
    if from_run is not None:
        config["from"] = str(checked_path(from_run, "from_run").absolute())
    if config["method"]["pseudo_labels"] is not None:
        task = validated_images(task, config)  # load_task has validated the whole pool only where it has no labels
    settings = training_settings(config)
    return train_and_evaluate(config, backbone, task, None, console or Console(quiet=True), settings)


def _check_given(backbone: Any, task: Any, function: str, overrides: Sequence[str]) -> None:
    """Check a backbone, a task, and that no override is theirs; raises UserError."""
    if not isinstance(backbone, DualEncoder) or not isinstance(task, Task):
        raise UserError(
            f"{function} takes a backbone from load_backbone(…) and a task from load_task(…), not their names"
        )
    check_method_overrides(overrides)


def check_method_overrides(overrides: Sequence[str]) -> None:
    """Check that overrides are settings, and none is of the task or the backbone; raises UserError."""
    configuration.check_overrides(overrides)
    for text in overrides:
        if text.lstrip("+~").split("=")[0].split(".")[0] in RESERVED_KEYS:
            raise UserError(
                f"'{text}' belongs to the task or the backbone: give it to load_task or load_backbone, or as a "
                "parameter of the estimator"
            )


def run_settings(
    backbone: DualEncoder,
    task: Task,
    method: str,
    overrides: Sequence[str],
    config_dir: str | Path | None,
    engine: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings of a run of a method on a task with a backbone."""
    values = {"method": method, "shots": task.shots, "seed": task.seed, "classes": task.classes}
    values |= {f"engine.{key}": value for key, value in engine.items()}
    config = configuration.compose(overrides, config_dir, values)
    as_made = {"views": task.views, "augment": task.augment, "resize": "crop", "skip_broken": False}
    by_hand = {"data": {"name": task.name}, "task": {**config["task"], **as_made}}
    return config | {"backbone": backbone.source, "kind": task_kind(task).settings, **(task.origin or by_hand)}


def choose(
    backbone: DualEncoder,
    task: Task,
    minutes: float = DEFAULT_MINUTES,
    methods: str | Sequence[str] = ALL,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    console: Console | None = None,
    **engine: Any,
) -> Choice:
    """Choose a method for a task by cross-validation on its support set, and fit it to all of it.

    Test images are never looked at before the last fit is done. With one image a class, the method is taken that has
    the best published accuracy after one shot.

    Args:
        backbone: from `load_backbone`; it is moved to the device.
        task: from `load_task`.
        minutes: the time to choose and to fit; test images are evaluated on top of it.
        methods: names of methods, or "all" for those that need no more than labelled images.
        overrides: settings of all of them, as on the command line.
        config_dir: a folder with YAML files and modules of your own.
        console: where to print; None prints nothing.
        engine: settings below `engine`.

    Raises:
        SettingsError: settings that are unknown or don't fit the backbone or the task.
        UserError: no method fits in the budget.

    >>> choice = choose(load_backbone(), load_task("digits", shots=2), 1, ["zero_shot", "tip_adapter"], cpu=True)
    >>> choice.method in ("zero_shot", "tip_adapter"), choice.policy
    (True, 'cross-validation')
    """
    minutes, began = check_minutes(minutes), time.monotonic()
    _check_given(backbone, task, "choose", overrides)
    names = configuration.few_shot_methods(config_dir) if methods == ALL else _as_list(methods)
    if not names:
        raise UserError("methods=[] leaves nothing to choose from")
    if len({*map(str, names)}) < len(names):
        raise UserError(f"methods={names} has a method twice")
    configs = {name: run_settings(backbone, task, name, overrides, config_dir, engine) for name in names}
    usable = {name: config for name, config in configs.items() if methods != ALL or not needs_more(config)}
    return choose_and_fit(backbone, task, usable, minutes, console or Console(quiet=True), began)


def evaluate(
    run: str | Path,
    data: str | None = None,
    config_dir: str | Path | None = None,
    console: Console | None = None,
    pretrained: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a finished run on its own test sets, or on other data.

    Args:
        run: the run's directory, the folder of an artifact, or a repository of the Hugging Face hub, as for `load`.
        data: a name in conf/data or in `config_dir`, whose class names take the place of the run's; the run's own data
            if None.
        config_dir: a folder with YAML files and modules of your own.
        console: where to print; None prints nothing.
        pretrained: a tag or a file of the backbone's weights, where they aren't where the run had them.
        options: of the other data, and `skip_broken`, as of `load_task`; `classes="run"` lets all classes of the run
            compete, not those of the data alone.

    Returns:
        The metrics, as in a result's `metrics`.

    Raises:
        SettingsError: unknown data or options.
        UserError: the run isn't finished, or can't be evaluated on these data.

    >>> task = load_task("digits", shots=1)
    >>> result = finetune(load_backbone(), task, "zero_shot", cpu=True, workers=0)
    >>> evaluate(result.save("one_shot"))["accuracy"] == result.metrics["accuracy"]
    True
    """
    run, console = find_learned(run), console or Console(quiet=True)
    if data is None and options:
        raise UserError(f"{', '.join(options)} belong to other data: say which, as in data='folder'")
    if data is None:
        return evaluate_finished(run, None, console, config_dir, pretrained=pretrained)
    classes = check_competing(options.pop("classes", "data"))
    values = {f"{'task' if key == 'skip_broken' else 'data'}.{key}": value for key, value in options.items()}
    config = configuration.compose((), config_dir, {"data": data, **values})
    skip = config["task"]["skip_broken"]
    return evaluate_finished(run, config["data"], console, config_dir, skip, classes, pretrained)


def compare(
    methods: str | Sequence[str],
    data: str | Sequence[str] | None = None,
    shots: int | Sequence[int] | None = None,
    seed: int | Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Run methods on data sets at numbers of shots, and average their results over seeds.

    Every run is the one that the command line makes of the same settings, in the same directory: finished runs are
    read, missing ones are computed. Tables and curves go to `<output>/compare/`.

    Args:
        methods: their names, or "all".
        data: names of sources; that of a single run if None, as for `shots` and `seed`.
        shots: labelled images per class, or "all".
        seed: draws them.
        overrides: settings of all runs, as on the command line.
        config_dir: a folder with YAML files and modules of your own.
        console: where to print; None prints nothing.

    Returns:
        A row for each method, data set and number of shots. The reason why a run failed is in its row's `failed`.

    Raises:
        SettingsError: settings that don't fit, in any of the runs.

    >>> [row["method"] for row in compare("zero_shot", shots=1, overrides=["engine.cpu=true", "engine.workers=0"])]
    ['zero_shot']
    """
    configuration.check_overrides(overrides)
    given = {"methods": methods, "data": data, "shots": shots, "seed": seed}
    axes = {axis: _as_list(value) for axis, value in given.items() if value is not None}
    return run_study(comparison(axes, overrides, config_dir), console or Console(quiet=True))


def _as_list(value: Any) -> list[Any]:
    """Return one value, or several, as a list of plain values."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or not getattr(value, "shape", True):
        return [plain(value)]
    return [plain(one) for one in value]


def load(
    source: str | Path,
    device: str | None = None,
    config_dir: str | Path | None = None,
    pretrained: str | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> Predictor:
    """Load the classifier of a finished run; it adapts to the images it gets if the method does so at test time.

    Args:
        source: the directory of a run, the folder of an artifact, or a repository of the Hugging Face hub, "user/name",
            where no folder has that name.
        device: where to compute; None takes a GPU if there is one.
        config_dir: a folder of your own with the adaptation's module. A run can't name modules itself: it may be
            somebody else's.
        pretrained: a tag or a file of the backbone's weights, where they aren't where the run had them.
        revision: a branch, tag or commit of the repository; None for its main branch.
        token: of the Hugging Face hub; None for that of `hf auth login`.

    Raises:
        UserError: no run is there, it isn't finished, or there is no such device.
        WeightsError: the backbone's weights are not those that the run was trained on.

    >>> result = finetune(load_backbone(), load_task("digits", shots=1), "zero_shot", cpu=True, workers=0)
    >>> load(result.save("saved"), device="cpu").class_names[:2]
    ['zero', 'one']
    """
    return load_predictor(source, device, config_dir, pretrained, revision, token)


def export(
    run: str | Path | Predictor | Result,
    format: str,
    out: str | Path,
    config_dir: str | Path | None = None,
    **options: Any,
) -> Exported:
    """Write what a run learned in a format of other tools, and check it against the run on images.

    Args:
        run: the run's directory, its result, or a predictor.
        format: "onnx", "torch", "open_clip", "classifier", "peft" or "transformers".
        out: the folder to write; it may not be there yet.
        config_dir: a folder of your own with the adaptation's module.
        options: of the format, as on the command line: `images`, the most test images to check on, for all; `opset`,
            `preprocess` and `quantize` for "onnx"; `compile` for "torch".

    Returns:
        The files that were written, and the largest difference of probabilities.

    Raises:
        SettingsError: an unknown format or option.
        UserError: the method can't be exported so, a package isn't installed, or something is at `out` already.

    >>> result = finetune(load_backbone(), load_task("digits", shots=1), "zero_shot", cpu=True, workers=0)
    >>> exported = export(result.save("to_export"), "classifier", "weights", images=8)
    >>> exported.files, exported.difference < 1e-4
    (('classifier.json', 'classifier.npy', 'classifier.safetensors'), True)
    """
    find_format(format)
    values, folder = read_options(format, options), checked_path(out, "out")
    check_place(format, folder)
    directory = None if isinstance(run, Predictor | Result) else checked_path(run, "the run directory")
    if isinstance(run, Result):
        predictor = run.predictor
    else:
        predictor = run if isinstance(run, Predictor) else load(run, "cpu", config_dir)
    examples = find_examples(directory, predictor, values["images"], config_dir)
    return export_predictor(predictor, format, folder, examples, values)
