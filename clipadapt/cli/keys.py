"""The key=value words of the commands other than `fit`, and what their values may be."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipadapt import config
from clipadapt.config.overrides import Words, non_overrides
from clipadapt.errors import UserError, nearest
from clipadapt.paths import checked_path, shorten

if TYPE_CHECKING:
    from clipadapt.api import Predictor


def plain_settings(words: Words, known: Sequence[str], example: str = "") -> dict[str, str]:
    """Return the key=value words of a command other than `fit` as a dictionary.

    Args:
        words: of the command line.
        known: the keys of the command.
        example: how the command is written, for words that aren't key=value.

    Raises:
        UserError: words that aren't key=value, or keys and options that the command doesn't have.
    """
    good, problems = non_overrides(words.settings, lambda: known)
    if example:
        own = tuple(f"as in {key}=" for key in known)
        problems = [text if any(map(text.__contains__, own)) else with_example(text, example) for text in problems]
    found = dict(word.split("=", 1) for word in good if "=" in word)
    problems += [f"there is no key {key}: {nearest(key, known)}" for key in found if key not in known]
    problems += [f"{option} has no meaning here" for option in words.options if option != "--config-dir"]
    config.raise_all(problems)
    return found


def with_example(text: str, example: str) -> str:
    """Return advice on words that aren't key=value, with a whole command in place of an unknown key."""
    return f"{text.partition(', as in ')[0]}, as in {example}"


def find_run_directory(found: dict[str, str], command: str) -> Path:
    """Return the directory that `run=` names: a run's, an artifact's, or a copy of a repository of the hub.

    Raises:
        UserError: the words have no `run=`, or there is no such directory and no such repository.
    """
    if not found.get("run"):
        raise UserError(f"say which run: clipadapt {command} run=outputs/digits/tiny/coop/shots16-seed1")
    directory = checked_path(found["run"], "run")
    if os.path.isdir(directory):
        return directory
    if os.path.exists(directory):
        raise UserError(f"run={shorten(found['run'])} is a file: give the run's directory, which holds its files")
    from clipadapt.runs.model_hub import fetch, is_repository  # imports NumPy

    name, _, revision = found["run"].partition("@")
    if not is_repository(name):
        raise UserError(f"there is no run directory {directory}")
    return fetch(name, revision or None, None)


def load(directory: Path, words: Words, found: Mapping[str, str]) -> "Predictor":
    """Load the predictor of a run, with the folder and the weights that the words name."""
    from clipadapt import api

    folder = words.options.get("--config-dir")
    return api.load(directory, config_dir=folder, pretrained=found.get("pretrained"))


def read_switch(found: Mapping[str, str], key: str) -> bool:
    """Return whether a key is true; it isn't where it isn't given.

    Raises:
        UserError: it is neither true nor false.
    """
    given = found.get(key, "false").lower()
    if given not in ("true", "false"):
        raise UserError(f"{key}={shorten(given)} does not fit: it must be true or false")
    return given == "true"


def read_share(key: str, text: str) -> float:
    """Return the share or the probability that a key names.

    Raises:
        UserError: it is no number above 0 and below 1.
    """
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"{key}={shorten(text)} does not fit: it must be a number above 0 and below 1")
    return share


def read_count(key: str, text: str) -> int:
    """Return the whole number that a key names.

    Raises:
        UserError: it is no whole number of at least 1.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise UserError(f"{key}={shorten(text)} does not fit: it must be a whole number (at least 1)")
    return int(text)
