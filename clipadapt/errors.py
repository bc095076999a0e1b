"""Errors that the user can fix, and parts of their messages."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """An error that the user can fix: what is wrong, where, how to mend it. The command line prints no traceback."""


class DataError(UserError):
    """Images, tables, folders or shards that can't be used, or data of a name that isn't known."""


class WeightsError(UserError):
    """A backbone or its weights that aren't known, or can't be fetched or read."""


class SettingsError(UserError):
    """Settings that are unknown or missing, or that don't fit."""


class DivergenceError(UserError):
    """A loss, or what is learned, stopped being finite."""


class MissingPoint(SettingsError):
    """A tower of the backbone lacks the point that an adaptation edits."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return advice after an unknown `name`: the nearest of the known `choices`, and the first twenty of them."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    advice = f"did you mean '{close[0]}'? " if close else ""
    return f"{advice}(known: {join_names(known, 20)})"


def join_names(names: Sequence[str], shown: int) -> str:
    """Return the first `shown` names with commas between them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
