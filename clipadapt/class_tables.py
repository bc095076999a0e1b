"""Texts of each class in a table that users bring."""

from collections.abc import Mapping, Sequence

from clipadapt.errors import UserError
from clipadapt.interfaces import underscores_to_spaces

Table = Mapping[str, Sequence[str]]
"""Texts by class name."""


def look_up(table: Table, label: str, names: Sequence[str], place: str) -> dict[str, Sequence[str]]:
    """Return what a table says of a class, by name for CLIP: under its label, or else under each of its names.

    Names are looked up as they are, or else with underscores as spaces.

    Raises:
        UserError: the class isn't there.
    """
    found: dict[str, Sequence[str]] = {}
    for name in names:
        keys = [key for each in (name, label) for key in (each, underscores_to_spaces(each)) if key in table]
        if not keys:
            raise missing(label, place, [key for key in table if key.strip().casefold() == label.casefold()])
        found[name] = table[keys[0]]
    return found


def look_up_sentences(table: Table, label: str, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the sentences of a class, as `look_up` does.

    Raises:
        UserError: the class isn't there, or a sentence of it is empty.
    """
    found = look_up(table, label, names, "sentences")
    if not all(text.strip() for own in found.values() for text in own):
        raise UserError(f"a sentence of the class {label} in `sentences` is empty: write it, or take it out")
    return found


def missing(label: str, place: str, near: Sequence[str] = ()) -> UserError:
    """Return the error of a class of which a table says nothing, and the keys near to its name."""
    hint = f" (there is '{near[0]}', which is written in another way)" if near else ""
    return UserError(f"there are no {place} of the class {label}: add some under its name to `{place}`{hint}")


def checked_table(table: dict[str, list[str]] | str, place: str) -> dict[str, list[str]]:
    """Return a table of texts by class as it is.

    Raises:
        UserError: it is the path of a file.
    """
    if isinstance(table, str):
        raise UserError(f"{place}={table} is a file, which only settings may name: give the table that is in it")
    return table
