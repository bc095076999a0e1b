"""The commands that look at finished runs: `clipadapt list` and `clipadapt show`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from clipadapt import config as configuration
from clipadapt.cli.sweeps import find_reference
from clipadapt.console import make_console
from clipadapt.errors import UserError
from clipadapt.paths import checked_path

CONFIG = "config.yaml"
"""The settings of a run; `clipadapt.runs.reading` has the name, too, and imports PyTorch."""

if TYPE_CHECKING:
    from clipadapt.runs.reading import RunReader


def list_runs(folder: str) -> None:
    """Print a table of the runs below a folder, with the leading figure of each.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    from clipadapt.report.runs import show  # imports PyTorch
    from clipadapt.runs.reading import RunReader

    place = checked_path(folder, "folder")
    if not place.is_dir():
        raise UserError(f"there is no folder {place}: clipadapt list folder=outputs")
    usual: dict[str, dict[str, Any]] = {}
    rows = [describe_run(RunReader(path), os.path.relpath(path, place), usual) for path in find_runs(place)]
    if not rows:
        raise UserError(f"there are no runs in {place}")
    show(make_console(), tell_apart(rows))


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the run directories below a folder, sorted; hidden folders are left out."""
    for place, folders, files in os.walk(folder):
        if CONFIG in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def describe_run(run: "RunReader", name: str, usual: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the table says of a run, or a `note` in place of all but its `name`.

    That is its `record`, `method`, `metrics`, and `settings` that differ from the defaults; `usual` has the defaults
    composed before.
    """
    try:
        if not run.finished:
            return {"name": name, "note": "not finished: the command of the run goes on with it"}
        config = run.config()
        method, settings = str(config["method"]["name"]), find_settings(config, usual)
        return {"name": name, "method": method, "settings": settings, "record": run.record(), "metrics": run.result()}
    except UserError as error:
        return {"name": name, "note": str(error)}
    except (KeyError, TypeError):
        return {"name": name, "note": f"its {CONFIG} has no method.name"}


def find_settings(config: Mapping[str, Any], usual: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return by key the settings of a run that differ from the defaults; `usual` has those composed before.

    A task made by hand has no defaults, nor has a method of the user's own: what is below its key is left out.

    Raises:
        UserError: the settings are none of a run.
    """
    own = {**config, "config_dir": None}  # which somebody else's run doesn't choose
    try:
        if "_target_" not in own["data"]:
            return {}
        found = configuration.differing_settings(own, find_reference(own, usual))
        known = own["method"]["name"] in configuration.options("method")
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"its {CONFIG} holds no settings of a run") from error
    if "choice" in own:
        found = {key: value for key, value in found.items() if not key.startswith("choice.")}
        found["method"] = f"chosen among {len(own['choice']['among'])}"
    return {key: value for key, value in found.items() if known or not key.startswith("method.")}


def tell_apart(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the table says of runs, each with the settings alone that not all of them share."""
    found = [row["settings"] for row in rows if "settings" in row]
    differ = {key for one in found for key in one if any(key not in other or other[key] != one[key] for other in found)}
    return [
        row | {"settings": {key: value for key, value in row.get("settings", {}).items() if key in differ}}
        for row in rows
    ]


def show_run(directory: Path) -> None:
    """Print the plan and the figures of a finished run, after a check of its files.

    Raises:
        UserError: no run is there, it isn't finished, or a file of it is damaged.
    """
    from clipadapt.report import summary, tables  # imports PyTorch
    from clipadapt.report.runs import settings_text
    from clipadapt.runs.result import read_result

    result, console = read_result(directory), make_console()
    record, name = result.record, result.config["method"]["name"]
    console.print(Text(f"{name} on {record['task']} with {record['backbone']['name']}: {directory}"), soft_wrap=True)
    if settings := find_settings(result.config, {}):
        console.print(Text(f"settings: {settings_text(settings)}"), soft_wrap=True)
    if "plan" in record:  # an artifact has none
        console.print(tables.plan_table(record["plan"]))
    summary.show_result(console, result.metrics)
    console.print(Text(f"clipadapt predict run={directory} images=… answers with it."), soft_wrap=True)


def show_mistakes(directory: Path, config_dir: str | None) -> None:
    """Print the mistakes of a finished run, and write them to its directory as a page and as CSV.

    Raises:
        UserError: no finished run, one without test images, or data that have changed since.
    """
    from clipadapt.runs import mistakes  # imports PyTorch
    from clipadapt.runs.reading import MISTAKES_CSV, MISTAKES_PAGE

    console = make_console()
    found = mistakes.show_mistakes(directory, console, config_dir)
    said = "The same with pictures" if found else "No mistake"
    console.print(Text(f"{said}: {directory / MISTAKES_PAGE}, and {MISTAKES_CSV} beside it"), soft_wrap=True)
