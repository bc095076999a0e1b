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
            raise UserError(f"there are no {place} of the class {label}: add some under its name to `{place}`")
        found[name] = table[keys[0]]
    return found


def checked_table(table: dict[str, list[str]] | str, place: str) -> dict[str, list[str]]:
    """Return a table of texts by class as it is.

    Raises:
        UserError: it is the path of a file.
    """
    if isinstance(table, str):
        raise UserError(f"{place}={table} is a file, which only settings may name: give the table that is in it")
    return table
