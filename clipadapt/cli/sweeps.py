"""The runs of a sweep: their settings, their directories, and the table of their results."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any

from clipadapt import config as configuration
from clipadapt.config.composing import composer, overridden_key, parse, to_container, with_absolute_paths
from clipadapt.config.grids import GRID_KEYS
from clipadapt.console import make_console
from clipadapt.errors import UserError

Choices = list[list[str]]


MAX_RUNS = 10_000
"""Runs of a sweep; each is composed and checked before the first one starts."""


def list_choices(settings: Sequence[str], folder: str | None) -> Choices:
    """Return for each setting the settings `key=value` of its values: one if the sweep has no others.

    Raises:
        UserError: the sweep has too many runs.
    """
    with composer(folder):
        choices = [list_values(text) for text in settings]
    if math.prod(map(len, choices)) > MAX_RUNS:
        raise UserError(f"these settings are more than {MAX_RUNS:,} runs: sweep over fewer values")
    return choices


def list_values(text: str) -> list[str]:
    """Return the settings of single values that a setting sweeps over, at most one more than a sweep may have."""
    try:
        override = parse(text)
        values = override.sweep_string_iterator() if override.is_discrete_sweep() else iter(())
        return [f"{override.get_key_element()}={value}" for value in islice(values, MAX_RUNS + 1)] or [text]
    except Exception:  # composing the settings reports what can't be parsed
        return [text]


def cover(choices: Choices) -> list[list[str]]:
    """Return settings of single runs such that every value of a sweep occurs at least once."""
    longest = max(map(len, choices), default=1)
    return [[values[min(number, len(values) - 1)] for values in choices] for number in range(longest)]


def show_sweep(choices: Choices, folder: str | None) -> None:
    """Print the table of a sweep's results, read from the directories of its runs."""
    from clipadapt.report.sweeps import show  # imports PyTorch
    from clipadapt.runs.directory import RunDirectory

    rows = []
    for row, directory in list_runs(choices, folder):
        run = RunDirectory(directory)
        rows.append((row, run.result() if run.finished else None))
    show(make_console(), rows)


def list_runs(choices: Choices, folder: str | None) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield for each run of a sweep what distinguishes it, by key, and its directory."""
    swept = [values for values in choices if len(values) > 1 and overridden_key(values[0]) not in GRID_KEYS.values()]
    usual: dict[str, dict[str, Any]] = {}
    with composer(folder) as compose_with:
        for settings in product(*choices):
            config = with_absolute_paths(to_container(compose_with(settings), folder))
            also = {overridden_key(text): text.partition("=")[2] for text in settings if any(text in v for v in swept)}
            yield describe(config) | also, configuration.run_directory(config, find_reference(config, usual))


def describe(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a run's method, data, shots and seed as text."""
    return {
        "method": "+".join([config["method"]["name"], *config["method"]["also"]]),
        "data": configuration.data_name(config["data"], config["config_dir"]),
        "shots": str(config["shots"]),
        "seed": str(config["seed"]),
    }


def find_reference(config: Mapping[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the default settings of a run's data, backbone and method; `known` has those composed before."""
    key = json.dumps([config["data"], config["backbone"]["name"], config["method"]["name"]])
    if key not in known:
        known[key] = configuration.reference(config)
    return known[key]
