"""Programs of a command line in Hydra's manner: one run or a sweep, everything checked before the first one starts."""

import functools
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from omegaconf import DictConfig

from clipadapt.config.check import check, check_call
from clipadapt.config.composing import CONFIG, composer, gather, normal, parse, plain, raise_all
from clipadapt.config.tree import conf_dir, own_folder
from clipadapt.config.words import Words, split
from clipadapt.console import guarded
from clipadapt.errors import UserError

Judge = Callable[[dict[str, Any]], list[str]]
SHOWING = {"--shell-completion", "--hydra-help", "--version", "--info"}


def launch(
    task: Callable[[dict[str, Any]], None], arguments: Sequence[str], first: Sequence[str] = (), judge: Judge = check
) -> None:
    """Read a command line, check all of it, and do the task once for each set of settings it asks for.

    Args:
        task: what to do with the plain settings of one run.
        arguments: the words after the program's name: settings, and options as Hydra has them (`-m`, `--cfg job`, …).
        first: settings that come before those words.
        judge: lists what is wrong with the settings of one run.

    Raises:
        UserError: listing what is wrong with the words, or what the task refuses.
    """
    words = split(arguments)
    words.settings = [*first, *normal(words.settings)]
    folder = words.options.get("--config-dir")
    own_folder(folder)
    if not SHOWING & {*words.options}:
        wanted = variants(words.settings, folder) if "--multirun" in words.options else [words.settings]
        problems = []
        for settings in wanted:
            config, found = gather(settings, folder)
            problems += found if "--cfg" in words.options else [*found, *judge(config)]
        raise_all(problems)
    hand_over(task, words, judge)


def variants(settings: Sequence[str], folder: str | None) -> list[list[str]]:
    """Settings of single runs in which every value of a sweep occurs at least once."""
    choices = []
    with composer(folder):
        for text in settings:
            try:
                override = parse(text)
                values = [*override.sweep_string_iterator()] if override.is_discrete_sweep() else []
                choices.append([f"{override.get_key_element()}={value}" for value in values] or [text])
            except Exception:  # whatever can't be read is told when it is composed
                choices.append([text])
    longest = max((len(values) for values in choices), default=1)
    return [[values[min(number, len(values) - 1)] for values in choices] for number in range(longest)]


def hand_over(task: Callable[[dict[str, Any]], None], words: Words, judge: Judge) -> None:
    """Let Hydra do the rest; mistakes in some runs of a sweep are told when the others are done."""
    folder = words.options.get("--config-dir")
    mistakes: list[UserError] = []
    crashes: list[Exception] = []

    def job(composed: DictConfig) -> None:
        if crashes:
            return
        try:
            config = plain(composed, folder)
            raise_all(judge(config))
            task(config)
        except UserError as error:
            mistakes.append(error)
        except Exception as error:  # raised below: Hydra would cut its traceback
            crashes.append(error)

    # Hydra writes its record of a sweep to a folder: not among the runs.
    with tempfile.TemporaryDirectory() as elsewhere, command_line(words.for_hydra(f"hydra.sweep.dir={elsewhere}")):
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG)(job)()
    for crash in crashes:
        raise crash
    raise_all(str(error) for error in mistakes)


@contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Other words after the program's name, which is where Hydra reads them."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def recipe(name: str) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a function the program of a recipe, with its settings from YAML and the command line.

    The function gets the settings of a run as a plain dict, then the keys of conf/recipe/<name>.yaml as arguments
    (`recipe.key=value` on the command line): its own signature says what they may be. `--help` prints its docstring.
    """

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        run_settings = next(iter(inspect.signature(function).parameters))

        def judge(config: dict[str, Any]) -> list[str]:
            return [*check(config), *check_call("recipe", config["recipe"], function, (run_settings,))]

        def task(config: dict[str, Any]) -> None:
            function(config, **config["recipe"])

        def start() -> int:
            if {"-h", "--help"} & {*sys.argv[1:]}:
                sys.stdout.write(f"{inspect.getdoc(function)}\n")
            else:
                launch(task, sys.argv[1:], [f"+recipe={name}"], judge)
            return 0

        @functools.wraps(function)
        def program() -> None:
            sys.exit(guarded(start))

        return program

    return decorate
