"""Compose the settings of a run with Hydra from YAML and overrides, and list all problems with them."""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from clipadapt.config.check import check, leaves, list_places
from clipadapt.config.given import choices, merge, prefill
from clipadapt.config.groups import GROUPS, group_at
from clipadapt.config.overrides import check_overrides, non_overrides, unknown_key
from clipadapt.config.renamed import new_key, new_option
from clipadapt.config.spelling import take_as_written
from clipadapt.config.targets import annotations, locate
from clipadapt.config.tree import conf_dir, options, own_folder, own_modules
from clipadapt.config.values import MISSING, check_value, metadata
from clipadapt.errors import SettingsError, nearest
from clipadapt.files import TABLE, is_path
from clipadapt.paths import checked_path, shorten, why_unwritable
from clipadapt.plain_yaml import read_plain_yaml

CONFIG = "config"
LAUNCHER = "hydra/launcher"
LONGEST = 2_000
"""Characters that are shown of a problem."""


def methods(config_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """Return name, title, paper and arXiv id of every method."""
    found = []
    for name, path in options("method", config_dir).items():
        method = read_yaml(path).get("method")
        method = method if isinstance(method, dict) else {}
        found.append({"name": name, **{key: method.get(key) for key in ("title", "paper", "arxiv")}})
    return found


def complete_methods(config_dir: str | Path | None = None) -> list[str]:
    """Return the names of the methods whose settings all have a value, so that they need nothing of the user's."""
    methods = options("method", config_dir)
    return [name for name, path in methods.items() if MISSING not in (value for _, value in leaves(read_yaml(path)))]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file without resolving anything in it.

    Raises:
        SettingsError: the file can't be read.
    """
    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path} can't be read: {one_line(error)}") from error
    return found if isinstance(found, dict) else {}  # type: ignore[return-value]


def compose(
    overrides: Sequence[str] = (), config_dir: str | Path | None = None, values: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Compose the settings of a run and check them against the signatures of their targets.

    Args:
        overrides: in Hydra's grammar, as on the command line: `method=coop`, `engine.epochs=5`.
        config_dir: the user's own folder, with YAML files in groups, and modules that these may name.
        values: Python values by dotted key, used as they are: texts are neither parsed nor resolved.

    Raises:
        SettingsError: a list of all problems: unknown names and keys, values that don't fit or are missing.
    """
    check_overrides(overrides)
    chosen, others, wrong = choices(values or {}, overrides, config_dir)
    composed, problems = partly_composed([*chosen, *overrides], config_dir)
    prefill(composed, others)
    config = to_container(composed, config_dir)
    problems = [*wrong, *problems, *merge(config, others)]
    raise_all([*problems, *check(config)])
    return with_absolute_paths(config)


def gather(overrides: Sequence[str], config_dir: str | Path | None = None) -> tuple[dict[str, Any], list[str]]:
    """Compose settings as far as possible; also return the problems of the overrides that were left out."""
    composed, problems = partly_composed(overrides, config_dir)
    return to_container(composed, config_dir), problems


def partly_composed(overrides: Sequence[str], config_dir: str | Path | None = None) -> tuple[DictConfig, list[str]]:
    """Compose like `gather`, with references unresolved."""
    with composer(config_dir) as compose_with:
        good, problems = non_overrides(normal(overrides), lambda: list_keys(compose_with([])))
        problems = [text[:LONGEST] for text in problems]
        several = [text for text in good if lists_options(text, config_dir)]
        problems += [f"{text}: a run has one {overridden_key(text)}; {as_sweep(text)} runs each" for text in several]
        good = [text for text in good if text not in several]
        try:
            composed = compose_with(good)
        except Exception:  # Hydra and OmegaConf raise many types; the overrides are then tried one by one
            composed, more = one_by_one(good, compose_with, config_dir)
            problems += more
    return composed, problems


def to_container(composed: DictConfig, config_dir: str | Path | None) -> dict[str, Any]:
    """Return composed settings as plain values, with the user's own folder and its modules added."""
    try:
        config: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise SettingsError(f"a reference can't be resolved: {one_line(error)}") from error
    if isinstance(config.get("allowed_targets"), list):
        given = config["allowed_targets"]
        config["allowed_targets"] = [*given, *(name for name in own_modules(config_dir) if name not in given)]
    folder = own_folder(config_dir)
    return config | {"config_dir": None if folder is None else str(folder)}


def with_absolute_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return checked settings that hold in any folder: absolute paths of data and of `from`, tables in place of files.

    Raises:
        SettingsError: a file has no table that fits.
    """
    data, start = config["data"], config["from"]
    hints = annotations(locate(data["_target_"], GROUPS["data"], config["allowed_targets"]))
    paths = {key: text for key, text in data.items() if isinstance(text, str) and is_path(hints.get(key), text)}
    absolute = {key: str(Path(text).expanduser().absolute()) for key, text in paths.items()}
    config = config | {"data": data | absolute, "from": start and str(Path(start).expanduser().absolute())}
    return with_tables(config)


def with_tables(config: dict[str, Any]) -> dict[str, Any]:
    """Return checked settings with the tables of files that the method's settings name in place of their paths.

    Raises:
        SettingsError: a file can't be read, or its table doesn't fit.
    """
    config = copy.deepcopy(config)
    for place, node in list_places({"method": config["method"]}):
        group = group_at(place)
        assert group is not None
        hints = annotations(locate(node["_target_"], group, config["allowed_targets"]))
        for key in [key for key, value in node.items() if isinstance(value, str) and TABLE in metadata(hints.get(key))]:
            table = read_plain_yaml(checked_path(node[key], f"{place}.{key}"))
            texts = {str(name): value for name, value in table.items()}
            raise_all(f"the file {node[key]}: {text}" for text in check_value(f"{place}.{key}", texts, hints[key]))
            node[key] = texts
    return config


def raise_all(problems: Iterable[str]) -> None:
    """Raise one SettingsError that lists the problems, each once; nothing if there are none."""
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        raise SettingsError(unique[0])
    if unique:
        raise SettingsError("\n".join([f"{len(unique)} things need mending:", *(f"  - {text}" for text in unique)]))


@contextmanager
def composer(config_dir: str | Path | None) -> Iterator[Callable[[Sequence[str]], DictConfig]]:
    """Set up Hydra's compose for our YAML tree and the user's folder; restore Hydra's earlier state at exit."""
    folder = own_folder(config_dir)
    search = [] if folder is None else [f"hydra.searchpath=[{quoted(f'file://{folder}')}]"]
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), job_name="clipadapt", version_base="1.3"):
            yield lambda overrides: hydra.compose(CONFIG, [*search, *overrides])
    finally:
        GlobalHydra.instance().hydra = outer


def quoted(text: str) -> str:
    """Quote a text as one value of Hydra's grammar."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def normal(overrides: Sequence[str]) -> list[str]:
    """Return overrides as Hydra reads them: text quoted where need be, and groups of the defaults without `+`."""
    entries = read_yaml(conf_dir() / "config.yaml")["defaults"]
    chosen = {key for entry in entries if isinstance(entry, dict) for key in entry}
    usual = (text[1:] if text[0:1] == "+" and text[1:].partition("=")[0] in chosen else text for text in overrides)
    return [*map(take_as_written, usual)]


def one_by_one(
    overrides: Sequence[str], compose_with: Callable[[Sequence[str]], DictConfig], config_dir: str | Path | None
) -> tuple[DictConfig, list[str]]:
    """Compose with every override that Hydra accepts; also return the problem of each other override."""
    accepted: list[str] = []
    problems: list[str] = []
    lost: list[str] = []  # groups without a valid choice: overrides of keys below them can't be checked
    composed = compose_with([])
    for text in sorted(overrides, key=lambda text: not group_options(text, config_dir)):
        if any(overridden_key(text).startswith(f"{group}.") for group in lost):
            continue
        try:
            composed = compose_with([*accepted, text])
            accepted.append(text)
        except Exception as error:
            known = group_options(text, config_dir)
            problem = explain(text, known, error, composed)
            problems.append(problem if len(problem) < LONGEST else problem.replace(text, shorten(text))[:LONGEST])
            lost += [overridden_key(text).rpartition("@")[2]] if known else []
    return composed, problems


def list_keys(composed: DictConfig) -> list[str]:
    """Return all dotted keys that an override may set."""
    found: dict[str, None] = {}
    for path, _ in leaves(OmegaConf.to_container(composed)):
        parts = path.split(".")
        found |= {".".join(parts[:count]): None for count in range(1, len(parts) + 1)}
    return [path for path in found if not re.search(r"(^|\.)(_\w+_|\d+)$", path)]


def overridden_key(text: str) -> str:
    """Return the key that an override sets: a dotted key, a group, or group@package."""
    return text.lstrip("+~").partition("=")[0]


def group_options(text: str, config_dir: str | Path | None) -> list[str]:
    """Return the options of the group that an override sets; empty if it sets a key."""
    return [*options(overridden_key(text).partition("@")[0], config_dir)]


def explain(text: str, known: Sequence[str], error: Exception, composed: DictConfig) -> str:
    """Return the message for an override that Hydra refuses; `known` are the options of its group, if any."""
    try:
        override = parse(text)
    except OverrideParseException as syntax:
        return unreadable(text, syntax)
    key, value = override.key_or_group, str(override.value())
    if key == "hydra/sweeper" and "optuna" in text:
        return f"{text}: it needs Optuna's sweeper, which comes with pip install 'clipadapt[optuna]'"
    if override.is_interval_sweep():
        return f"{text} is an interval to search in: add -m hydra/sweeper=optuna, or list values"
    if override.is_sweep_override():
        return f"{text} has several values: put -m before it to run each, or write a list as {key}=[…]"
    if known and value not in known:
        group = key.partition("@")[0]
        return f"there is no {group} '{value}': {new_option(group, value) or nearest(value, known)}"
    if override.package is not None and not known:
        return f"{text}: there is no group {key}"
    if not known and OmegaConf.select(composed, key, throw_on_missing=False) is None:
        if key.partition(".")[0].partition("/")[0] == "hydra":
            reason = one_line(error).partition(" To append to your")[0]
            return f"{text}: {reason} (clipadapt --info config shows Hydra's keys)"
        return f"there is no key {key}: {new_key(key) or unknown_key(key, list_keys(composed))}"
    reason, _, appended = one_line(error).partition(" To append to your")
    if key == LAUNCHER and "Could not load" in reason:
        return f"{text}: it needs submitit's launcher, which comes with pip install 'clipadapt[slurm]'"
    if appended and is_global(conf_dir() / key / f"{value}.yaml"):
        return f"{text}: write +{text}"
    return f"{text}: {reason}"


def lists_options(text: str, config_dir: str | Path | None) -> bool:
    """Return whether an override lists several options of a group; Hydra would silently take the last."""
    return "=[" in text and bool(group_options(text, config_dir))


def as_sweep(text: str) -> str:
    """Return a setting that lists values in brackets as a sweep."""
    key, _, listed = text.partition("=")
    return f"-m {key}={listed.strip('[]')}"


def is_global(path: Path) -> bool:
    """Return whether a file of a group exists and sets keys outside its group."""
    return path.is_file() and path.read_text().startswith("# @package _global_")


def unreadable(text: str, syntax: OverrideParseException) -> str:
    """Return the message for an override that breaks the grammar."""
    if fault := why_unwritable(text):
        return f"{shorten(text)} can't be read: {fault}"
    reason = one_line(syntax).partition(" See http")[0]
    return f"{text} can't be read: {reason} (write text with special characters as '{overridden_key(text)}=\"…\"')"


def parse(text: str) -> Override:
    """Parse an override by Hydra's grammar; only inside `composer`.

    Raises:
        OverrideParseException: it breaks the grammar, or is too deep or too long for the parser.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        return parser.parse_overrides([text])[0]
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise OverrideParseException(text, str(error)) from error


def one_line(error: Exception) -> str:
    """Return an error's message on one line, without Hydra's search path."""
    return " ".join(str(error).partition("Config search path")[0].split())
