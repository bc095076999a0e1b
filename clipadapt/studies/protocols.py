"""Studies: the runs of a recipe or of `clipadapt compare`, and the further test sets that they are evaluated on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from clipadapt.config.check import check_call
from clipadapt.config.composing import compose, overridden_key, raise_all, read_yaml
from clipadapt.config.grids import GRID_KEYS, read_lists
from clipadapt.config.groups import GROUPS
from clipadapt.config.overrides import setting
from clipadapt.config.targets import locate
from clipadapt.config.tree import options
from clipadapt.errors import SettingsError, nearest
from clipadapt.runs.targets import EvaluationTarget
from clipadapt.studies.grid import RunSpec, find_repeated, grid, grid_directory, write_list

TARGETS, CORRUPTIONS, SEVERITIES = "targets", "corruptions", "severities"
EXTRA_KEYS: Mapping[str, list[Any]] = {TARGETS: [], CORRUPTIONS: [], SEVERITIES: [1, 2, 3, 4, 5]}
"""Recipe keys beside the grid's, with their defaults."""
COMPARE = "compare"
CORRUPT = "clipadapt.data.corruptions.corrupted"


@dataclass(frozen=True)
class Study:
    """The runs of one call of a recipe or of `clipadapt compare`.

    Attributes:
        protocol: name of the recipe's protocol; "compare" for a comparison.
        runs: the runs.
        targets: test sets that each run is evaluated on beside its own.
        directory: of tables and curves.
    """

    protocol: str
    runs: list[RunSpec]
    targets: list[EvaluationTarget]
    directory: Path


def study(protocol: str, words: Sequence[str] = (), config_dir: str | None = None) -> Study:
    """Compose and check the runs of a protocol's recipe.

    Args:
        protocol: its name; conf/recipe/<name>.yaml has its axes, its targets, and the settings of all its runs.
        words: of the command line, which override the YAML: `methods=[…]`, `data=[…]`, `shots=[…]`, `seed=[…]`,
            `targets=[…]`, `corruptions=[…]`, `severities=[…]`, and further settings of all runs.
        config_dir: a folder of the user's own.

    Raises:
        SettingsError: listing everything that is wrong with any of the runs.
    """
    usual = {**EXTRA_KEYS, **read_yaml(options("recipe", config_dir)[protocol])}
    given, overrides = read_lists(words, config_dir, (*GRID_KEYS, *EXTRA_KEYS))
    lists = {key: given.get(key, usual.get(key, [])) for key in (*GRID_KEYS, *EXTRA_KEYS)}
    if TARGETS not in given:
        lists[TARGETS] = [name for name in lists[TARGETS] if name not in lists["data"]]
    elif usual[TARGETS] and not lists[TARGETS] and not lists[CORRUPTIONS]:
        raise SettingsError(f"{TARGETS}=[] leaves no other data to test on: leave it out, or name some")
    settings = usual.get("settings", [])
    fixed = {overridden_key(text): text for text in settings}
    contrary = [text for text in overrides if text != fixed.get(overridden_key(text), text)]
    problems = [f"{text}: what {protocol} runs has {fixed[overridden_key(text)]}" for text in contrary]
    raise_all([*find_faults(lists, given), *problems])
    targets = [*data_targets(lists[TARGETS], config_dir), *corruption_targets(lists[CORRUPTIONS], lists[SEVERITIES])]
    runs = grid({axis: lists[axis] for axis in GRID_KEYS}, [*settings, *overrides], config_dir)
    directory = grid_directory(runs, protocol, [target.name for target in targets])
    return Study(protocol, runs, targets, directory)


def comparison(
    axes: Mapping[str, Sequence[Any]], overrides: Sequence[str] = (), config_dir: str | Path | None = None
) -> Study:
    """Compose and check the runs of `clipadapt compare`; arguments and errors as of `grid`."""
    runs = grid(axes, overrides, config_dir)
    return Study(COMPARE, runs, [], grid_directory(runs, COMPARE))


def find_faults(lists: Mapping[str, Sequence[Any]], given: Iterable[str]) -> Iterator[str]:
    """Find what is wrong with the lists of further test sets; `given` are the keys that the user has set."""
    for key in EXTRA_KEYS:
        yield from find_repeated(key, lists[key])
    for name in lists[TARGETS]:
        if name in lists["data"]:
            yield f"{name} is learned and a target: what is learned from is no other data; leave it out of {TARGETS}"
    if lists[CORRUPTIONS] and not lists[SEVERITIES]:
        yield f"say which {SEVERITIES}: {SEVERITIES}=[…]"
    if SEVERITIES in given and not lists[CORRUPTIONS]:
        yield f"there are no corruptions for {write_list(SEVERITIES, lists[SEVERITIES])}: add {CORRUPTIONS}=[…]"


def data_targets(names: Sequence[str], config_dir: str | None) -> list[EvaluationTarget]:
    """Return data sets as targets.

    Raises:
        SettingsError: unknown ones.
    """
    known = options("data", config_dir)
    raise_all(f"there is no data '{name}': {nearest(str(name), known)}" for name in names if str(name) not in known)
    return [EvaluationTarget(name, data=compose([setting("data", name)], config_dir)["data"]) for name in names]


def corruption_targets(names: Sequence[str], severities: Sequence[int]) -> list[EvaluationTarget]:
    """Return every corruption at every severity as a target.

    Raises:
        SettingsError: unknown ones.
    """
    function = locate(CORRUPT, GROUPS["corruption"])
    found = [{"name": name, "severity": severity} for name, severity in product(names, severities)]
    problems = [text for given in found for text in check_call("one", given, function, ("split",))]
    raise_all(text.replace("one.name", CORRUPTIONS).replace("one.severity", SEVERITIES) for text in problems)
    return [
        EvaluationTarget(f"{one['name']}/{one['severity']}", corruption={"_target_": CORRUPT, **one}) for one in found
    ]
