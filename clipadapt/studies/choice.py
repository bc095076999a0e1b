"""A choice among methods, and the run of the chosen one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.text import Text

from clipadapt import config as configuration
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.checksums import dump_checked_json, read_checked_json
from clipadapt.console import finished_work
from clipadapt.data.tasks import Task
from clipadapt.errors import UserError
from clipadapt.files import write_atomically
from clipadapt.report.choice import ChoiceRow, choice_sheet
from clipadapt.report.sheets import Sheet, markdown_table, rich_table
from clipadapt.report.tables import count_text
from clipadapt.runs.folds import number_of_folds
from clipadapt.runs.lock import hold_and_tidy
from clipadapt.runs.methods import build_settings, training_settings, usual_device, with_usable_cache
from clipadapt.runs.result import Result
from clipadapt.runs.run import load_backbone_and_task, run
from clipadapt.runs.train import train_and_evaluate
from clipadapt.studies.candidates import Candidate, find_candidates, limited
from clipadapt.studies.choosing import CROSS_VALIDATION, PUBLISHED_ORDER, Budget, Chooser
from clipadapt.studies.fold_fits import FoldFits
from clipadapt.studies.grid import RunSpec, grid_directory
from clipadapt.threads import limited_threads

FOLDER, TABLE, SAVED = "choose", "choice.md", "choice.json"
"""Folder of choices below the output, and its files."""

Configs = Mapping[str, dict[str, Any]]
"""Settings of a run by the name of its method."""


@dataclass(frozen=True, repr=False)
class Decision:
    """A method that was chosen for a task.

    Attributes:
        method: its name.
        most_steps: the steps of its run, where the budget allows no whole fit; else None.
        policy: "cross-validation"; or "published accuracy after one shot" where no class has two images.
        figure: title of the figure that was compared.
        rows: what was found of each method.
    """

    method: str
    most_steps: int | None
    policy: str
    figure: str
    rows: list[ChoiceRow]

    def __repr__(self) -> str:
        """Return the method and how it was chosen."""
        return f"<{type(self).__name__} {self.method}: {self.policy} among {count_text(len(self.rows), 'method')}>"

    def sheet(self) -> Sheet:
        """Return the table of what was found."""
        return choice_sheet(self.rows, self.method, self.figure, self.policy)


@dataclass(frozen=True, repr=False)
class Choice(Decision):
    """A method that was chosen for a task, and the result of its run on all images.

    Attributes:
        result: of the run.
    """

    result: Result


def choose_and_fit(
    clip: DualEncoder, task: Task, configs: Configs, minutes: float, console: Console, began: float
) -> Choice:
    """Choose a method for a task and fit it to all of its images; arguments and errors as of `decide`."""
    found = decide(clip, task, configs, minutes, console, began)
    config = settings_of_chosen(found.method, found.most_steps, task, configs, minutes)
    settings = training_settings(config)
    result = train_and_evaluate(config, clip, task, None, console, settings)
    return Choice(**vars(found), result=result)


def decide(clip: DualEncoder, task: Task, configs: Configs, minutes: float, console: Console, began: float) -> Decision:
    """Choose a method for a task, and show what was found.

    Args:
        clip: the backbone; it is moved to the device.
        task: the task.
        configs: settings of a run of each method that may be chosen.
        minutes: the time to choose and to fit; test images are evaluated on top of it.
        console: where to print.
        began: when that time began, of `time.monotonic`.

    Raises:
        UserError: see `Chooser.choose`; the task has no images to learn from; or there are several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a method is chosen in one process: give the command without torchrun")
    task.check_has_images()
    cpu = build_settings(next(iter(configs.values()))).cpu
    clip.to(usual_device(cpu), clip.dtype)  # where its speed is measured
    with limited_threads(clip.parameters), settings_of_folds(configs) as short:
        budget, fits = Budget(60 * minutes, began), FoldFits(clip, task, console)
        tried = find_candidates(clip, task, short)
        how = f"in {fits.folds} folds" if fits.folds > 1 else "one a class, by published accuracies"
        counts = [count_text(len(tried), "method"), count_text(len(task.support), "image")]
        console.print(f"Choosing among {counts[0]} on {counts[1]}, {how}, in {minutes_text(minutes)}.", soft_wrap=True)
        best = Chooser(fits, budget).choose(tried)
    rows = [make_row(one, fits.leads) for one in tried]
    found = Decision(best.method, best.most_steps, policy(task), fits.title, rows)
    sheet = found.sheet()
    console.print(rich_table(sheet))
    for note in sheet.notes:
        console.print(Text(note), soft_wrap=True)
    return found


def policy(task: Task) -> str:
    """Return how a method is chosen for a task."""
    return CROSS_VALIDATION if number_of_folds(task.support.labels) > 1 else PUBLISHED_ORDER


def settings_of_chosen(
    method: str, most_steps: int | None, task: Task, configs: Configs, minutes: float
) -> dict[str, Any]:
    """Return the settings of the run of a chosen method, with how it was chosen below `choice`."""
    choice = {"by": policy(task), "among": sorted(configs), "minutes": minutes}
    return limited(configs[method], most_steps) | {"choice": choice}


def minutes_text(minutes: float) -> str:
    """Return a number of minutes in words."""
    return f"{minutes:g} minute{'' if minutes == 1 else 's'}"


@contextmanager
def settings_of_folds(configs: Configs) -> Iterator[Configs]:
    """Yield the settings of fits to folds: without a tracker and folds of their own, and with a cache.

    Folds read the same features. Where there is no usable cache, a temporary folder is one meanwhile.
    """
    settings = with_usable_cache(build_settings(next(iter(configs.values()))))
    with TemporaryDirectory() as folder:
        own = {"cache": settings.cache or folder, "tracker": None, "cross_validate": None}
        yield {name: config | {"engine": config["engine"] | own} for name, config in configs.items()}


def make_row(one: Candidate, leads: str) -> ChoiceRow:
    """Return what is known of a candidate, given the name of the leading figure."""
    return {
        "method": one.method,
        "score": one.score() if one.scores else None,
        "interval": one.interval(leads),
        "fits": len(one.scores),
        "most_steps": one.most_steps,
        "seconds": one.seconds,
        "parameters": one.parameters,
        "new_classes": one.new_classes,
        "dropped": one.dropped,
    }


def choose_in_directory(runs: Sequence[RunSpec], minutes: float, console: Console, began: float) -> Result:
    """Choose among the methods of runs on the same data, and do the run of the chosen one in its directory.

    The table is saved in `<output>/choose/`; if it is there, and the data haven't changed, nothing is tried again.

    Args:
        runs: one for each method.
        minutes: as of `decide`.
        console: where to print.
        began: as of `decide`.

    Raises:
        UserError: as of `decide`, or of the run.
    """
    folder = grid_directory(runs, FOLDER, [f"{minutes:g} minutes"])
    with hold_and_tidy(folder):  # it can be written: known before the time is spent
        if (folder / SAVED).is_dir():
            raise UserError(f"{folder / SAVED} is a folder, and the choice is a file of that name: move it away")
    clip, task = load_backbone_and_task(runs[0].config, console)
    configs = {spec.method: spec.config for spec in runs}
    found = None if runs[0].config["rerun"] else read(folder, task.fingerprint, configs)
    if found is None:
        with as_stopped_choice(configs):
            decision = decide(clip, task, configs, minutes, console, began)
        save(folder, task.fingerprint, decision)
        found = decision.method, decision.most_steps
    console.print(Text(f"{found[0]} is chosen: {folder / TABLE} has the table."), soft_wrap=True)
    config = settings_of_chosen(*found, task, configs, minutes)
    directory = configuration.run_directory(config)
    try:
        return run(config, directory, console, lambda *_: (clip, task))
    except KeyboardInterrupt as stop:
        stop.args = (finished_work(directory),)
        raise


@contextmanager
def as_stopped_choice(configs: Configs) -> Iterator[None]:
    """Let a request to stop say what is kept of a choice that isn't made: encoded images, where there is a cache."""
    try:
        yield
    except KeyboardInterrupt as stop:
        cached = any(config["engine"]["cache"] is not None for config in configs.values())
        kept = "Images that were encoded are kept, but no scores" if cached else "No scores are kept"
        stop.args = (f"{kept}: the same command begins the choice again.",)
        raise


def save(folder: Path, fingerprint: str, found: Decision) -> None:
    """Write a decision: a table for people, and JSON that is read again."""
    with hold_and_tidy(folder):
        write_atomically(folder / TABLE, markdown_table(found.sheet()) + "\n")
        write_atomically(folder / SAVED, dump_checked_json({"fingerprint": fingerprint, **vars(found)}))


def read(folder: Path, fingerprint: str, configs: Configs) -> tuple[str, int | None] | None:
    """Return the method and the steps of the decision in a folder; None if there is none on the same data."""
    try:
        content = read_checked_json(folder / SAVED)
        method, most_steps = content["method"], content["most_steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is made anew
    known = content.get("fingerprint") == fingerprint and method in configs
    return (method, most_steps) if known and (most_steps is None or isinstance(most_steps, int)) else None
