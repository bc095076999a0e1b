"""Studies: the grid of runs that a call of a recipe or of `clipadapt compare` asks for, and their further test sets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from clipadapt.config.check import check_call
from clipadapt.config.composing import compose, key_of, raise_all, read_yaml
from clipadapt.config.groups import GROUPS
from clipadapt.config.overrides import setting
from clipadapt.config.targets import locate
from clipadapt.config.tree import options
from clipadapt.errors import UserError, nearest
from clipadapt.studies.grid import GRID_KEYS, RunSpec, axes_of, bracketed, grid, grid_directory, repeated

TARGETS, CORRUPTIONS, SEVERITIES = "targets", "corruptions", "severities"
EXTRA_KEYS: Mapping[str, list[Any]] = {TARGETS: [], CORRUPTIONS: [], SEVERITIES: [1, 2, 3, 4, 5]}
"""What a recipe lists beside the axes of its grid, and what that is where neither its YAML nor the user says."""
COMPARE = "compare"
CORRUPT = "clipadapt.data.corruptions.corrupted"


@dataclass(frozen=True)
class EvaluationTarget:
    """A test set that isn't a run's own.

    Attributes:
        name: in tables.
        data: settings of the data; the run's own where None. Their first test set is taken.
        corruption: what makes of that a split of corrupted images; None for the images as they are.
        images: what stands for the data as they are now, as a task's; empty where they aren't there, or the run's own.
    """

    name: str
    data: Mapping[str, Any] | None = None
    corruption: Mapping[str, Any] | None = None
    images: str = ""


@dataclass(frozen=True)
class Study:
    """What one call of a recipe, or of `clipadapt compare`, runs.

    Attributes:
        protocol: the name of what the recipe follows; "compare" for a comparison.
        runs: the runs.
        targets: what each of them is tested on beside its own test sets.
        directory: where tables and pictures go.
    """

    protocol: str
    runs: list[RunSpec]
    targets: list[EvaluationTarget]
    directory: Path


def study(protocol: str, words: Sequence[str] = (), config_dir: str | None = None) -> Study:
    """What a protocol's recipe runs.

    Args:
        protocol: its name: conf/recipe/<name>.yaml has the axes, the targets, and the settings of all runs that make it
            what it is.
        words: of the command line, which go before the YAML's: `methods=[…]`, `data=[…]`, `shots=[…]`, `seed=[…]`,
            `targets=[…]`, `corruptions=[…]`, `severities=[…]`, and further settings of all runs.
        config_dir: a folder of a user's own.

    Raises:
        UserError: listing everything that is wrong with any of the runs.
    """
    usual = {**EXTRA_KEYS, **read_yaml(options("recipe", config_dir)[protocol])}
    given, overrides = axes_of(words, config_dir, (*GRID_KEYS, *EXTRA_KEYS))
    lists = {key: given.get(key, usual.get(key, [])) for key in (*GRID_KEYS, *EXTRA_KEYS)}
    if TARGETS not in given:
        lists[TARGETS] = [name for name in lists[TARGETS] if name not in lists["data"]]
    elif usual[TARGETS] and not lists[TARGETS] and not lists[CORRUPTIONS]:
        raise UserError(f"{TARGETS}=[] leaves no other data to test on: leave it out, or name some")
    settings = usual.get("settings", [])
    fixed = {key_of(text): text for text in settings}
    contrary = [text for text in overrides if text != fixed.get(key_of(text), text)]
    problems = [f"{text}: what {protocol} runs has {fixed[key_of(text)]}" for text in contrary]
    raise_all([*faults(lists, given), *problems])
    targets = [*other_data(lists[TARGETS], config_dir), *corrupted(lists[CORRUPTIONS], lists[SEVERITIES])]
    runs = grid({axis: lists[axis] for axis in GRID_KEYS}, [*settings, *overrides], config_dir)
    directory = grid_directory(runs, protocol, [target.name for target in targets])
    return Study(protocol, runs, targets, directory)


def comparison(
    axes: Mapping[str, Sequence[Any]], overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Study:
    """What `clipadapt compare` runs; arguments and errors as of `grid`."""
    runs = grid(axes, overrides, config_dir)
    return Study(COMPARE, runs, [], grid_directory(runs, COMPARE))


def faults(lists: Mapping[str, Sequence[Any]], given: Iterable[str]) -> Iterator[str]:
    """What is wrong with the lists of further test sets, some of which the user has given."""
    for key in EXTRA_KEYS:
        yield from repeated(key, lists[key])
    for name in lists[TARGETS]:
        if name in lists["data"]:
            yield f"{name} is learned and a target: what is learned from is no other data; leave it out of {TARGETS}"
    if lists[CORRUPTIONS] and not lists[SEVERITIES]:
        yield f"say which {SEVERITIES}: {SEVERITIES}=[…]"
    if SEVERITIES in given and not lists[CORRUPTIONS]:
        yield f"there are no corruptions for {bracketed(SEVERITIES, lists[SEVERITIES])}: add {CORRUPTIONS}=[…]"


def other_data(names: Sequence[str], config_dir: str | None) -> list[EvaluationTarget]:
    """Data sets to test on, by name.

    Raises:
        UserError: unknown ones.
    """
    known = options("data", config_dir)
    raise_all(f"there is no data '{name}': {nearest(str(name), known)}" for name in names if str(name) not in known)
    return [EvaluationTarget(name, data=compose([setting("data", name)], config_dir)["data"]) for name in names]


def corrupted(names: Sequence[str], severities: Sequence[int]) -> list[EvaluationTarget]:
    """Every corruption at every severity.

    Raises:
        UserError: unknown ones.
    """
    function = locate(CORRUPT, GROUPS["corruption"])
    found = [{"name": name, "severity": severity} for name, severity in product(names, severities)]
    problems = [text for given in found for text in check_call("one", given, function, ("split",))]
    raise_all(text.replace("one.name", CORRUPTIONS).replace("one.severity", SEVERITIES) for text in problems)
    return [
        EvaluationTarget(f"{one['name']}/{one['severity']}", corruption={"_target_": CORRUPT, **one}) for one in found
    ]
