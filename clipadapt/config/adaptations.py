"""Read what a method's YAML says, without composing a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config import groups
from clipadapt.config.composing import complete_methods, read_yaml
from clipadapt.config.targets import locate
from clipadapt.config.tree import options, own_modules


def list_adaptations(method: str, config_dir: str | Path | None = None) -> list[tuple[Any, dict[str, Any]]]:
    """Return the class and the YAML settings of each adaptation of a method.

    Args:
        method: the method's name.
        config_dir: the user's own folder of YAML and modules.

    Raises:
        UserError: the method has no adaptation, a file can't be read, or a class doesn't exist or isn't allowed.
    """
    allowed, own = own_modules(config_dir), read_method(method, config_dir)["method"]
    nodes = [own.get("adaptation") or {}, *(node for node in (own.get("also") or {}).values() if node)]
    return [(locate(node.get("_target_"), groups.ADAPTATION, allowed), node) for node in nodes]


def read_method(method: str, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Return what a method's YAML says of `method` and `engine`: its own lines over its defaults, and those it extends.

    Raises:
        SettingsError: a file can't be read.
    """
    content, found = read_yaml(options("method", config_dir)[method]), dict[str, Any](method={}, engine={})
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and (base := entry.rpartition("/")[2]) in options("method", config_dir):
            found = merged(found, read_method(base, config_dir))
        for key, choice in entry.items() if isinstance(entry, dict) else ():
            group, _, place = key.removeprefix("override ").lstrip("/").partition("@")
            if place and choice in options(group, config_dir):
                put(found, place.split("."), read_yaml(options(group, config_dir)[choice]))
    return merged(found, {key: content.get(key) or {} for key in found})


def few_shot_methods(config_dir: str | Path | None = None) -> list[str]:
    """Return the methods that learn from labelled images or nothing before the test, as their YAML stands.

    Left out are those with a setting that the user must give, that adapt at test time, or that label images themselves.
    """
    found = {name: read_method(name, config_dir)["method"] for name in complete_methods(config_dir)}
    return [name for name, own in found.items() if not (own.get("test_time") or own.get("pseudo_labels"))]


def put(table: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value in nested tables, which are made where they aren't there."""
    for key in path[:-1]:
        table = table.setdefault(key, {})
    table[path[-1]] = value


def merged(under: Any, over: Any) -> Any:
    """Return nested tables with the values of others over them."""
    if not (isinstance(under, Mapping) and isinstance(over, Mapping)):
        return over
    return {**under, **{key: merged(under.get(key), value) for key, value in over.items()}}
