"""Grids of runs: every combination of methods, data sets, shots and seeds, checked before the first run starts."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from clipadapt.config.check import RUN, check
from clipadapt.config.composing import complete_methods, overridden_key, raise_all, read_yaml, with_absolute_paths
from clipadapt.config.directory import file_name, reference, run_directory
from clipadapt.config.grids import GRID_KEYS, Composition, compose_unresolved
from clipadapt.config.overrides import setting
from clipadapt.config.tree import conf_dir, options
from clipadapt.config.values import check_value, written
from clipadapt.errors import SettingsError, nearest
from clipadapt.paths import shorten

ALL, AUTO = "all", "auto"
"""The words for every method, and for the one that `clipadapt choose` finds."""
DEFAULT_MINUTES = 10
"""Time to choose a method and fit it."""
LONGEST_LISTING = 40

Axes = Mapping[str, Sequence[Any]]
Pair = tuple[str, str]


@dataclass(frozen=True)
class RunSpec:
    """One run of a grid.

    Attributes:
        method: name of the method.
        data: name of the data set.
        shots: labelled images per class.
        seed: draws the images, and all else.
        config: its settings.
        directory: of the run.
    """

    method: str
    data: str
    shots: int
    seed: int
    config: dict[str, Any]
    directory: Path


def grid(axes: Axes, overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> list[RunSpec]:
    """Compose and check the runs of a grid, in this order: data, shots, seed, method.

    Args:
        axes: values of `methods` ("all" for every method), and optionally of `data`, `shots` and `seed`.
        overrides: settings of all runs, as on the command line.
        config_dir: a folder of the user's own.

    Raises:
        SettingsError: listing everything that is wrong with any of the runs.
    """
    full = fill_axes(axes, config_dir)
    raise_all([*find_faults(full, config_dir), *find_misplaced(overrides)])
    pairs: list[Pair] = [*product(full["methods"], full["data"])]
    composed: dict[Pair, Composition] = {}
    problems: dict[str, list[Pair]] = {}
    for method, data in pairs:
        chosen = [setting("method", method), setting("data", data), *overrides]
        composed[method, data], wrong = compose_unresolved(chosen, config_dir)
        first = composed[method, data].resolve(shots=full["shots"][0], seed=full["seed"][0])
        for text in dict.fromkeys([*wrong, *check(first)]):
            problems.setdefault(text, []).append((method, data))
    raise_all(locate_problem(text, where, pairs) for text, where in problems.items())
    usual = {pair: reference(config.resolve()) for pair, config in composed.items()}
    runs = []
    for data, shots, seed, method in product(full["data"], full["shots"], full["seed"], full["methods"]):
        config = with_absolute_paths(composed[method, data].resolve(shots=shots, seed=seed))
        directory = run_directory(config, usual[method, data])
        runs.append(RunSpec(method, data, shots, seed, config, directory))
    return runs


def fill_axes(axes: Axes, config_dir: str | Path | None) -> dict[str, list[Any]]:
    """Return every axis with its values; axes that aren't given have the value of a single run."""
    run = read_yaml(conf_dir() / "config.yaml")
    chosen = {key: value for entry in run["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    usual = {"methods": [], "data": [chosen["data"]], "shots": [run["shots"]], "seed": [run["seed"]]}
    full = {axis: [*axes.get(axis, usual[axis])] for axis in GRID_KEYS}
    if full["methods"] == [ALL]:
        full["methods"] = complete_methods(config_dir)
    return full


def find_faults(axes: Axes, config_dir: str | Path | None) -> Iterator[str]:
    """Find what is wrong with the values of the axes."""
    for axis, listed in axes.items():
        if not listed:
            yield f"say which {axis}: {axis}=[…]" + (f", or {axis}={ALL}" if axis == "methods" else "")
        yield from find_repeated(axis, listed)
        known = options(GRID_KEYS[axis], config_dir)
        for value in listed:
            if axis == "methods" and value == AUTO and AUTO not in known:
                yield f"{AUTO} chooses among methods, and is none of a list: clipadapt choose methods=[…] does that"
            elif known and written(value) not in known:
                yield f"there is no {GRID_KEYS[axis]} '{written(value)}': {nearest(written(value), known)}"
            elif not known:
                yield from check_value(axis, value, RUN[axis])


def find_repeated(key: str, listed: Sequence[Any]) -> Iterator[str]:
    """Find a list that has a value twice."""
    if len({*map(written, listed)}) < len(listed):
        yield f"{write_list(key, listed)} has a value twice"


def write_list(key: str, listed: Iterable[Any]) -> str:
    """Return a list as it is written on the command line."""
    return f"{key}=[{','.join(map(written, listed))}]"


def find_misplaced(overrides: Iterable[str]) -> Iterator[str]:
    """Find overrides of settings that an axis sets, or that a grid has no use for."""
    for text in overrides:
        for axis, key in GRID_KEYS.items():
            if overridden_key(text) in (axis, key):
                yield f"{text}: a grid has {axis}, written {axis}=[…]"
        if overridden_key(text).startswith("hydra/"):
            yield f"{text} is for sweeps, clipadapt -m …: these runs are made one after another"


def locate_problem(text: str, where: Sequence[Pair], pairs: Sequence[Pair]) -> str:
    """Return a problem; if it isn't common to all runs, with the methods and data that have it."""
    some = [
        f"{name}={', '.join(dict.fromkeys(pair[i] for pair in where))}"
        for i, name in enumerate(("method", "data"))
        if {pair[i] for pair in where} != {pair[i] for pair in pairs}
    ]
    return f"with {' and '.join(some)}: {text}" if some else text


def check_minutes(minutes: Any) -> float:
    """Return a budget in minutes after a check; raises SettingsError."""
    if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < math.inf:
        raise SettingsError(f"minutes={shorten(str(minutes))} does not fit: it must be a number above 0")
    return float(minutes)


def grid_directory(runs: Sequence[RunSpec], folder: str, targets: Sequence[str] = ()) -> Path:
    """Return `<output>/<folder>/digits-tiny-coop+vpt-shots1+4-seeds1+2-` and a hash of run directories and targets."""
    output = Path(runs[0].config["output"])
    paths = sorted(spec.directory.relative_to(output).as_posix() for spec in runs)
    digest = hashlib.sha256(json.dumps([paths, *targets] if targets else paths).encode()).hexdigest()[:8]
    parts = [
        join_values("", [spec.data for spec in runs], "data"),
        runs[0].config["backbone"]["name"],
        join_values("", [spec.method for spec in runs], "methods"),
        join_values("shots", [spec.shots for spec in runs], "shots"),
        join_values("seeds", [spec.seed for spec in runs], "seeds"),
        digest,
    ]
    return output / folder / file_name("-".join(parts))


def join_values(start: str, given: Iterable[Any], noun: str) -> str:
    """Return the values joined, each once; only their number if that is too long for a file name."""
    once = dict.fromkeys(map(str, given))
    text = "+".join(once)
    return f"{start}{text}" if len(text) <= LONGEST_LISTING else f"{len(once)}{noun}"
