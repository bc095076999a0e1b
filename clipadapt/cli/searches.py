"""A search of settings by Optuna, `hydra/sweeper=optuna`: its bounds, its objective, and what it found."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import OverrideParseException
from rich.text import Text

from clipadapt import config as configuration
from clipadapt.config.composing import (
    composer,
    gather,
    overridden_key,
    parse,
    read_yaml,
    unreadable,
    with_absolute_paths,
)
from clipadapt.config.grids import MAX_VALUES
from clipadapt.config.overrides import to_override
from clipadapt.console import make_console
from clipadapt.errors import SettingsError, UserError

SWEEPER, OPTUNA = "hydra/sweeper", "optuna"
PARAMS, DIRECTION = "hydra.sweeper.params", "hydra.sweeper.direction"
MAXIMIZE = f"{DIRECTION}=maximize"
FOUND = "optimization_results.yaml"
"""The file in which the sweeper leaves the best trial."""


class NoObjective(UserError):
    """Runs without validation images, by which no search can tell which is better."""


def is_search(settings: Sequence[str]) -> bool:
    """Return whether the words of a command line choose Optuna's sweeper."""
    return f"{SWEEPER}={OPTUNA}" in settings


def check_search(settings: Sequence[str], multirun: bool) -> None:
    """Check the words of a search that are Hydra's; raises UserError."""
    if not multirun:
        raise UserError(f"{SWEEPER}={OPTUNA} is a search over many runs: add -m")
    if any(overridden_key(text) == DIRECTION for text in settings):
        raise UserError(f"leave {DIRECTION} out: the better figure on the validation images is looked for")


def with_params(settings: Sequence[str], folder: str | None) -> list[str]:
    """Return the words of a search with a table `hydra.sweeper.params={key: …}` written as settings `key=…`."""
    with composer(folder):
        return [setting for text in settings for setting in expand(text)]


def expand(text: str) -> list[str]:
    """Return the settings in a table of params; any other word as it is. Only inside `composer`."""
    if overridden_key(text) != PARAMS:
        return [text]
    try:
        table = parse(text).value()
    except OverrideParseException as error:
        raise SettingsError(unreadable(text, error)) from None
    if not isinstance(table, dict):
        raise SettingsError(f'{text}: write a table, as in {PARAMS}={{engine.optimizer.lr:"interval(0.001,0.1)"}}')
    return [f"{key}={value}" for key, value in table.items()]


def list_bounds(settings: Sequence[str], folder: str | None) -> list[list[str]]:
    """Return for each setting the settings `key=value` to check: all of a choice, both ends of an interval or range."""
    with composer(folder):
        return [find_bounds(text) for text in settings]


def find_bounds(text: str) -> list[str]:
    """Return the settings of single values that stand for a setting of several. Only inside `composer`."""
    try:
        override = parse(text)
    except OverrideParseException:  # composing the settings reports what can't be parsed
        return [text]
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if not override.is_discrete_sweep():
        return [text]
    values = [f"{key}={one}" for one in islice(override.sweep_string_iterator(), MAX_VALUES)]
    return values if override.is_choice_sweep() else [values[0], values[-1]]


def objective(metrics: Mapping[str, Any]) -> float:
    """Return the leading figure on a run's validation images, its sign such that higher is better.

    Raises:
        NoObjective: the run had no validation images.
    """
    name, sign = leading(metrics)
    return sign * float(metrics["validation"][name])


def leading(metrics: Mapping[str, Any]) -> tuple[str, int]:
    """Return the name of the leading figure, and -1 where lower is better; raises NoObjective."""
    validation = metrics.get("validation")
    if not validation:
        raise NoObjective(
            f"{SWEEPER}={OPTUNA} searches by the figure on the validation images, and this run had none: give it a "
            "folder val/, or fewer shots"
        )
    shown = metrics.get("figures", {})
    name = next((name for name in shown if name in validation), next(iter(validation)))
    return name, -1 if name in shown and not shown[name]["higher_is_better"] else 1


def show_best(found: Path, settings: Sequence[str], folder: str | None) -> None:
    """Print the best run of a search, as the sweeper left it in a file; nothing if there is none."""
    from clipadapt.runs.reading import RunReader  # imports PyTorch

    if not found.is_file():
        return
    best = read_yaml(found)["best_params"]
    own = [f"{key}={to_override(value) if isinstance(value, str) else value}" for key, value in best.items()]
    fixed = [values[0] for values in list_bounds(settings, folder) if overridden_key(values[0]) not in best]
    config = with_absolute_paths(gather([*fixed, *own], folder)[0])
    directory = configuration.run_directory(config)
    metrics = RunReader(directory).result()
    name, _ = leading(metrics)
    text = f"Best by {name} on the validation images, {metrics['validation'][name]:.3f}: {' '.join(own)}; {directory}"
    make_console().print(Text(text), soft_wrap=True)
