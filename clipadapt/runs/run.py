"""Do one run in its directory: begin it, resume it, show it if it is finished, or compute it again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.console import is_main_process
from clipadapt.data import Task
from clipadapt.engine.processes import as_lost_process
from clipadapt.engine.settings import Settings
from clipadapt.engine.tracking import check_tracker
from clipadapt.files import as_write_error
from clipadapt.report import summary
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.lock import hold, tidy
from clipadapt.runs.methods import build_backbone, training_settings
from clipadapt.runs.result import Result, read_result
from clipadapt.runs.start import start_change_note
from clipadapt.runs.tasks import build_task, data_change_note, validated_images
from clipadapt.runs.train import train_and_evaluate

Load = Callable[[dict[str, Any], Console], tuple[DualEncoder, Task]]


def load_backbone_and_task(config: dict[str, Any], console: Console) -> tuple[DualEncoder, Task]:
    """Load the backbone and the task of composed settings.

    Args:
        config: the settings.
        console: shows the progress of checking the images.

    Raises:
        WeightsError: a backbone or weights that can't be had.
        DataError: images that can't be used.
    """
    task = build_task(config)
    backbone = build_backbone(config)
    return backbone, validated_images(task, config, console)  # last, as it looks at every image file


def run(
    config: dict[str, Any],
    directory: Path,
    console: Console | None = None,
    load: Load = load_backbone_and_task,
) -> Result:
    """Do the run of composed settings in its directory: resume it if it was stopped, show it if it is finished.

    Args:
        config: the settings.
        directory: of the run.
        console: where to print.
        load: returns backbone and task; called only if there is anything to compute.

    Raises:
        UserError: the directory holds something else; images or weights that can't be used; a loss that isn't finite.
    """
    console = console or Console()
    target = RunDirectory(directory)
    if is_finished(target, config):
        target.open(config, configuration.identity)
        if is_main_process():
            tidy(directory, target.remove_leftovers)
        return _show(config, target, console)
    with as_lost_process(directory), hold(directory):
        if is_main_process():
            with as_write_error(directory):
                target.restore()
        if target.path.exists():
            target.open(config, configuration.identity)
            if is_main_process():
                target.remove_leftovers()
        if is_finished(target, config):  # by the process that this one has waited for, or before it was killed
            return _show(config, target, console)
        return _compute(config, target, console, load)


def is_finished(target: RunDirectory, config: dict[str, Any]) -> bool:
    """Return whether a run is finished and not to be computed again."""
    return target.finished and not config["rerun"]


def _show(config: dict[str, Any], target: RunDirectory, console: Console) -> Result:
    """Show a finished run.

    Raises:
        SettingsError: a tracker is asked for that isn't installed.
    """
    check_tracker(config["engine"]["tracker"])
    console.print(Text(f"This run is finished (rerun=true computes it again): {target.path}"))
    result = read_result(target.path)
    if not console.quiet:
        notes = data_change_note(config, result.record), start_change_note(config, result.record)
        for note in filter(None, (*notes, tracker_note(config, result.config))):
            console.print(Text(f"note: {note}"))
    summary.show_result(console, result.metrics)
    return result


def tracker_note(config: dict[str, Any], saved: Mapping[str, Any]) -> str | None:
    """Return a note if a finished run's figures didn't go to the tracker that is asked for now, else None."""
    asked = config["engine"]["tracker"]
    if asked is None or asked == saved["engine"].get("tracker"):
        return None
    return f"engine.tracker={asked} gets nothing of a run that is finished: rerun=true computes it again, and sends it"


def _compute(config: dict[str, Any], target: RunDirectory, console: Console, load: Load) -> Result:
    """Compute a run, from where it was stopped."""
    settings = training_settings(config)
    backbone, task = load(config, console)
    if not target.finished:
        result = train_and_evaluate(config, backbone, task, target, console, settings)
    else:
        result = _rerun(config, backbone, task, target, console, settings)
    if is_main_process():
        console.print(Text(f"Saved in {target.path}"))
    return result


def _rerun(
    config: dict[str, Any],
    backbone: DualEncoder,
    task: Task,
    target: RunDirectory,
    console: Console,
    settings: Settings,
) -> Result:
    """Compute a finished run again in a directory beside it, which takes its place at the end."""
    fresh = target.beside()
    if is_main_process():
        fresh.remove()
    result = train_and_evaluate(config, backbone, task, fresh, console, settings)
    if is_main_process():
        with as_write_error(target.path):
            target.replace_by(fresh)
    return result
