"""Texts of the command line that Hydra's grammar doesn't read, such as paths with umlauts: taken as written."""

import os
import re
from collections.abc import Iterator

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from clipadapt.config.overrides import to_override
from clipadapt.paths import why_unwritable

OF_TEXTS = ("data.", "backbone.", "output", "engine.cache", "templates")
"""Beginnings of keys that may have any text as their values."""

QUOTES = " '\""
"""Characters around the keys of a table, for which Hydra's grammar has no quotes."""

PLAIN = re.compile(r"[\w./:@%+-]*", re.ASCII)
"""Values that Hydra reads as they are."""


def take_as_written(word: str) -> str:
    """Return a setting with its text quoted if Hydra's grammar can't read it, or would take an existing path for more.

    Lists and tables are quoted inside: [猫,犬] becomes ["猫","犬"]. Other settings are returned as they are.
    """
    key, equals, value = word.partition("=")
    if not equals or PLAIN.fullmatch(value) or not key.lstrip("+").startswith(OF_TEXTS) or why_unwritable(value):
        return word
    if os.path.lexists(os.path.expanduser(value)):
        return f"{key}={to_override(without_references(value))}"
    if can_be_parsed(word):
        return word
    if value.startswith("["):
        inside = value[1:-1]
        return f"{key}=[{','.join(map(quote_part, split_at_commas(inside)))}]" if value.endswith("]") else word
    if value.startswith("{") and value.endswith("}"):
        pairs = [part.partition(":") for part in split_at_commas(value[1:-1])]
        return f"{key}={{{','.join(f'{name.strip(QUOTES)}:{quote_part(text)}' for name, _, text in pairs)}}}"
    return word if value.startswith("{") else f"{key}={to_override(value)}"


def without_references(text: str) -> str:
    """Return a text in which ${…} is no reference."""
    return text.replace("${", "\\${")


def quote_part(text: str) -> str:
    """Return a part of a list or table, quoted unless it is read as it is."""
    text = text.strip()
    return text if can_be_parsed(f"key={text}") else to_override(text)


def can_be_parsed(word: str) -> bool:
    """Return whether Hydra's grammar reads a setting."""
    try:
        OverridesParser.create().parse_overrides([word])
    except (HydraException, ValueError, RecursionError):
        return False
    return True


def split_at_commas(text: str) -> Iterator[str]:
    """Yield the parts of a text between commas that aren't inside of quotes or brackets."""
    start, depth, quote = 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter == '"':
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and not depth:
            yield text[start:place]
            start = place + 1
    if text[start:].strip():
        yield text[start:]
