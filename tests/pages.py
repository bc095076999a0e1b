"""The commands and files that pages of the documentation show."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

from clipadapt import config, studies
from clipadapt.cli import data as data_command
from clipadapt.cli import main
from clipadapt.cli.searches import list_bounds
from clipadapt.cli.sweeps import cover
from clipadapt.config.overrides import split

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COMMAND = re.compile(r"^    ((?:clipadapt(?= |$)|python recipes/).*?)(?:  +.*)?$", re.MULTILINE)
FILE = re.compile(r"`((?:mine|my_pets|birds)/\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
SHOWING = {"methods", "--help", "--cfg"}


def commands(page: Path) -> list[str]:
    """The commands of a page, those over several lines in one; without patterns, which leave words out by `…`."""
    found = COMMAND.findall(re.sub(r" \\\n +", " ", page.read_text()))
    return [command for command in found if "…" not in command]


def files(page: Path, folder: Path) -> None:
    """Write the files that a page shows, below a folder."""
    for name, text in FILE.findall(page.read_text()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("/datasets", str(folder)))


def check_command(command: str) -> None:
    """Check a command as the command line does before it computes; what only shows something is run."""
    program, *arguments = shlex.split(command, comments=True)
    words = split(arguments)
    folder, settings = words.options.get("--config-dir"), words.settings
    if program == "python":
        recipe, *settings = settings
        assert studies.study(Path(recipe).stem, settings, folder).runs
    elif SHOWING & {*arguments}:
        assert main(arguments) == 0
    elif settings[:1] == ["compare"]:
        grid, overrides = config.read_lists(settings[1:], folder)
        assert studies.comparison(grid, overrides, folder).runs
    elif settings[:1] == ["choose"]:
        grid, overrides = config.read_lists([word for word in settings[1:] if not word.startswith("minutes=")], folder)
        assert studies.grid({"methods": ["all"]} | grid, overrides, folder)
    elif settings[:1] == ["data"]:
        assert settings[1] == "list" or data_command.composed(settings[2:], folder, settings[1])
    else:
        check_runs([word for word in settings if not word.startswith("hydra")], folder, "--multirun" in words.options)


def check_runs(settings: list[str], folder: str | None, several: bool) -> None:
    """Compose the settings of a run, or such of a sweep's that every value occurs."""
    for single in cover(list_bounds(settings, folder)) if several else [settings]:
        assert composed(tuple(single), folder)["method"]["name"]


@cache
def composed(settings: tuple[str, ...], folder: str | None = None) -> dict[str, Any]:
    """The settings of a run."""
    return config.compose(settings, folder)
