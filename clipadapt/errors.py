"""Mistakes a user can mend, told in one sentence."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """What is wrong, where, and how to mend it; the command line prints it without a traceback."""


class MissingPoint(UserError):
    """A tower of the backbone lacks the place that an adaptation changes."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Advice after an unknown `name`: the nearest of the known `choices`, and all of them when they are few."""
    known = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    advice = f"did you mean '{close[0]}'? " if close else ""
    return f"{advice}(known: {listed(known, 20)})"


def listed(names: Sequence[str], shown: int) -> str:
    """Names with commas between them: so many of them as are to be `shown`, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
