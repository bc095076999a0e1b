"""Split the command line into options and settings before Hydra parses it, with advice on words that are neither."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipadapt.errors import LONGEST, NEAR, SettingsError, suggest

ALONE = {"-m": "--multirun", "-h": "--help", "-r": "--run", "-sc": "--shell-completion", "-i": "--info"}
WITH_VALUE = {"-c": "--cfg", "-cd": "--config-dir", "-p": "--package"}
BARE = {*ALONE.values(), "--hydra-help", "--version", "--resolve"}
VALUED = set(WITH_VALUE.values())
INFORMATION = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}


@dataclass
class Words:
    """Words of a command line, split into options and settings.

    Attributes:
        options: values of the options, by their long names; None for options without a value.
        settings: all other words, in their order.
    """

    options: dict[str, str | None] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)

    def for_hydra(self, *first: str) -> list[str]:
        """Return the words in Hydra's order, with the settings `first` before the user's, which override them."""
        options = [word for name, value in self.options.items() for word in (name, value) if word is not None]
        return [*options, *(() if "--shell-completion" in self.options else first), *self.settings]


def split(arguments: Sequence[str]) -> Words:
    """Separate Hydra's options from settings; unknown options stay among the settings.

    Raises:
        SettingsError: an option lacks its value.
    """
    words, rest = Words(), list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = ALONE.get(name, WITH_VALUE.get(name, name))
        if name in VALUED:
            if not equals and not rest:
                raise SettingsError(f"{word} needs a value after it")
            words.options[name] = value if equals else rest.pop(0)
        elif name == "--info":
            words.options[name] = rest.pop(0) if rest and rest[0] in INFORMATION else value or None
        elif name in BARE and not equals:
            words.options[name] = None
        else:
            words.settings.append(word)
    return words


def check_overrides(overrides: Any) -> None:
    """Check that overrides given in Python are a list of texts; raises SettingsError."""
    if isinstance(overrides, list | tuple) and all(isinstance(text, str) for text in overrides):
        return
    raise SettingsError(f"overrides must be a list of texts, as in ['engine.epochs=5'], and {overrides!r} is not")


def non_overrides(settings: Sequence[str], keys: Callable[[], Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return the settings written key=value (or ~key), and advice on the others; `keys` returns the known keys."""
    good, advice = [], []
    rest = list(settings)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") and ("=" in word.strip("=") or word.startswith("~")):
            good.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        words = [word]
        while not (equals and value) and rest and "=" not in rest[0].strip("=") and not rest[0].startswith(("-", "~")):
            words.append(rest.pop(0))
            equals, value = "=", words[-1].strip("=")
        close = near_keys(key, keys())
        known = close[0] if close else key
        advice.append(f"'{' '.join(words)}' is no setting: write key=value, as in {known}={value or '…'}")
    return good, advice


def near_keys(key: str, keys: Iterable[str]) -> list[str]:
    """Return the known keys most similar to an unknown key, as a whole or in the last part, the most similar first."""
    key = key[:LONGEST]

    def likeness(known: str) -> float:
        whole = difflib.SequenceMatcher(None, key, known).ratio()
        last = difflib.SequenceMatcher(None, key.rpartition(".")[2], known.rpartition(".")[2]).ratio()
        return max(whole, 0.9 * last if "." not in key else 0.5 * (whole + last))

    near = (known for known in keys if likeness(known) >= NEAR)
    return sorted(near, key=lambda known: (-likeness(known), len(known)))


def unknown_key(key: str, keys: Iterable[str]) -> str:
    """Return advice on an unknown key: the most similar key, and the other keys of the same table."""
    known = sorted(keys)
    close = near_keys(key, known)
    parent = key.rpartition(".")[0]
    while parent and not any(name.startswith(f"{parent}.") for name in known):
        parent = parent.rpartition(".")[0]
    dotted = f"{parent}." if parent else ""
    beside = sorted({name[len(dotted) :].partition(".")[0] for name in known if name.startswith(dotted)})
    where = f" below {parent}" if parent else ""
    return suggest(close[0] if close else None, ", ".join(beside), where)


def setting(key: str, value: Any) -> str:
    """Return a Python value as a setting of the command line."""
    return f"{key}={to_override(value)}"


def to_override(value: Any) -> str:
    """Return a Python value in the grammar of the command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{to_override(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(to_override, value)) + "]"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    escaped = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + (found[2] and r"\""), str(value))
    return f'"{escaped}"'
