"""Python values as settings, merged into composed settings without parsing or resolving them."""

import numbers
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clipadapt.config.overrides import setting
from clipadapt.config.tree import options
from clipadapt.errors import nearest

CHOICES = ("kind", "data", "backbone", "method")
"""Groups whose value is the name of one of their files."""


def choices(
    values: Mapping[str, Any], overrides: Iterable[str], config_dir: Any
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Return overrides that choose files of groups, the other values by dotted key, and the problems of any value.

    Args:
        values: Values by dotted key; the values of `kind`, `data`, `backbone` and `method` are names of files.
        overrides: Overrides as text, which must not set the same keys.
        config_dir: The user's own folder of YAML and modules.
    """
    files = {key: options(key, config_dir) for key in CHOICES if key in values}
    lost = [key for key, known in files.items() if not isinstance(values[key], str) or values[key] not in known]
    chosen = [setting(key, values[key]) for key in files if key not in lost]
    problems = [f"there is no {key} '{values[key]}': {nearest(values[key], files[key])}" for key in lost]
    usable = {key: value for key, value in values.items() if key not in files and key.split(".")[0] not in lost}
    others = {key: plain(value) for key, value in usable.items()}
    texts = {text.lstrip("+~").partition("=")[0]: text for text in overrides}
    problems += [f"{key} is given twice: by itself, and as {texts[key]}" for key in values if key in texts]
    return chosen, others, problems


def plain(value: Any) -> Any:
    """Convert a Python value to YAML's types: tables, lists, numbers, booleans, null; anything else to text."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def prefill(composed: DictConfig, values: Mapping[str, Any]) -> None:
    """Set values in unresolved settings, so that references to these keys get the values."""
    for key, value in values.items():
        parent = OmegaConf.select(composed, key.rpartition(".")[0]) if "." in key else composed
        if isinstance(parent, DictConfig):
            OmegaConf.update(composed, key, escaped(value), force_add=True)


def escaped(value: Any) -> Any:
    """Escape the references (`${…}`) in all texts of a plain value."""
    if isinstance(value, dict):
        return {key: escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escaped(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def merge(config: dict[str, Any], values: Mapping[str, Any]) -> Iterator[str]:
    """Set values in plain settings; yield a problem for each key whose parent isn't a table."""
    for key, value in values.items():
        *parents, last = key.split(".")
        table: Any = config
        for name in parents:
            table = table.get(name) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            yield f"there is no key {key}: {'.'.join(parents)} is no table"
        elif isinstance(value, dict) and isinstance(table.get(last), dict):
            table[last] = {**table[last], **value}
        else:
            table[last] = value
