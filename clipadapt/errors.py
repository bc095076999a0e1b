"""Errors that the user can fix, and parts of their messages."""

import difflib
from collections.abc import Iterable, Sequence

WHOLE_WORD = 4
"""Letters from which on a name that another one contains is near it."""

NEAR = 0.65
"""Share of letters in common from which on a name is near another one; 'foo' and 'coop' have 0.57."""

LONGEST = 100
"""Letters of an unknown name that are compared; the time grows with their square."""


class UserError(Exception):
    """An error that the user can fix: what is wrong, where, how to mend it. The command line prints no traceback.

    >>> import clipadapt
    >>> try:
    ...     clipadapt.load("no/such/run", device="cpu")
    ... except clipadapt.UserError as error:
    ...     print(type(error).__name__)
    UserError
    """


class DataError(UserError):
    """Images, tables, folders or shards that can't be used.

    >>> import clipadapt
    >>> try:
    ...     clipadapt.load_task("folder", root="no/such/folder")
    ... except clipadapt.DataError as error:
    ...     print(type(error).__name__)
    DataError
    """


class WeightsError(UserError):
    """A backbone or its weights that aren't known, or can't be fetched or read.

    >>> import clipadapt
    >>> try:
    ...     clipadapt.load_backbone("tiny", pretrained="no/such/file.pt")
    ... except clipadapt.WeightsError as error:
    ...     print(type(error).__name__)
    WeightsError
    """


class SettingsError(UserError):
    """Settings that are unknown or missing, or that don't fit.

    >>> import clipadapt
    >>> try:
    ...     clipadapt.load_task("digits", shots=0)
    ... except clipadapt.SettingsError as error:
    ...     print(type(error).__name__)
    SettingsError
    """


class DivergenceError(UserError):
    """A loss or a learned tensor that is no longer finite.

    >>> import clipadapt
    >>> backbone, task = clipadapt.load_backbone(), clipadapt.load_task("digits", shots=1)
    >>> try:
    ...     clipadapt.finetune(backbone, task, "coop", ["engine.optimizer.lr=1e30"], epochs=3, cpu=True)
    ... except clipadapt.DivergenceError as error:
    ...     print(type(error).__name__)
    DivergenceError
    """


class WriteError(UserError):
    """A file or folder that can't be written: no room, no permission. What was saved before is whole."""


class InputError(DataError, ValueError):
    """Images, features or labels that an estimator can't take; also a ValueError, as scikit-learn raises."""


class MissingFigure(UserError, KeyError):
    """A figure that a run doesn't have; also a KeyError, as a mapping raises."""

    __str__ = Exception.__str__  # a KeyError's is quoted


class LostProcess(UserError):
    """Another process of this job has ended, so that this one can't go on alone."""


LASTING = (WriteError, LostProcess)
"""Errors of a run that the runs after it would have, too."""


class MissingPoint(SettingsError):
    """A tower of the backbone lacks the point that an adaptation edits."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return advice after an unknown `name`: the nearest of the known `choices`, and the first twenty of them."""
    known = sorted(map(str, choices))
    folded = {text.casefold(): text for text in reversed(known)}
    given = str(name)[:LONGEST].casefold()
    close = difflib.get_close_matches(given, folded, n=1, cutoff=NEAR)
    close = close or [text for text in folded if len(given) >= WHOLE_WORD and given in text]
    return suggest(folded[close[0]] if close else None, join_names(known, 20))


def suggest(name: str | None, known: str, where: str = "") -> str:
    """Return advice after an unknown name: the nearest `name`, None if none is near, and the `known` ones `where`."""
    if name is not None:
        return f"did you mean '{name}'? (known{where}: {known})"
    return f"known{where} are {known}" if ", " in known else f"the only one{where} is '{known}'"


def join_names(names: Sequence[str], shown: int) -> str:
    """Return the first `shown` names with commas between them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
