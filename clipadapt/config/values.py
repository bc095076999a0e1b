"""Check of values against annotations, and descriptions of annotations for messages."""

import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import DocInfo, Ge, Gt, Interval, Le, Lt, MinLen
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from clipadapt.config.hints import choice_hint
from clipadapt.errors import nearest
from clipadapt.files import ANY, FOLDER, TABLE
from clipadapt.paths import LOCAL, shorten, why_unusable, why_unwritable

MISSING = "???"
LONGEST = 300
"""Characters of a value that messages show."""
WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    dict: "a table",
    list: "a list",
    type(None): "null",
}


def check_value(path: str, value: Any, annotation: Any) -> list[str]:
    """Return the problem of a value, if any; nodes with a `_target_` and missing values are checked elsewhere."""
    if value == MISSING or (isinstance(value, Mapping) and "_target_" in value):
        return []
    if accepts(annotation, value):
        return unusable_path(path, value, annotation)
    advice = choice_hint(path, value)
    options = literals(annotation)
    shown = written(value)
    if isinstance(value, str) and is_quoted_number(value, annotation):
        shown, advice = f"'{shown}'", f"; it is text: without quotes, {shown}, it fits"
    elif options and isinstance(value, str):
        advice = f"; {nearest(value, options)}"
    elif isinstance(value, bool | int | float) and accepts(annotation, str(value)):
        advice = f"; for text quote it: {path}=\"'{value}'\""
    return [f"{path}={shown} does not fit: it must be {describe(annotation)}{advice}"]


def is_quoted_number(text: str, annotation: Any) -> bool:
    """Return whether a text is that of a number that fits an annotation."""
    try:
        number = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(number, int | float) and not isinstance(number, bool) and accepts(annotation, number)


def unusable_path(path: str, value: Any, annotation: Any) -> list[str]:
    """Return the problem of a setting that may be a path, if it is a text that no path can be."""
    if not isinstance(value, str) or not {ANY, FOLDER, LOCAL, TABLE} & {*metadata(annotation)}:
        return []
    reason = None if why_unwritable(value) else why_unusable(value)  # `check` reports all texts that aren't writable
    return [] if reason is None else [f"{path}={shorten(value)} can't be a path: {reason}"]


def metadata(annotation: Any) -> list[Any]:
    """Return the texts in the metadata of an annotation or of a member of a union."""
    parts = typing.get_args(annotation)
    own = parts[1:] if typing.get_origin(annotation) is Annotated else ()
    return [*(text for text in own if isinstance(text, str)), *(text for part in parts for text in metadata(part))]


def adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return pydantic's validator of an annotation, which may be a class that pydantic doesn't know."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:
        return TypeAdapter(annotation)


def accepts(annotation: Any, value: Any) -> bool:
    """Return whether a plain value fits an annotation: text never fits numbers, whole numbers fit any number.

    Infinity and NaN fit no annotation.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return False
    try:
        adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def written(value: Any) -> str:
    """Return a value as it is written on the command line."""
    return shorten(value if isinstance(value, str) else json.dumps(value, default=str), LONGEST)


def literals(annotation: Any) -> list[str]:
    """Return the values of the `Literal`s in an annotation."""
    if typing.get_origin(annotation) is Literal:
        return [str(word) for word in typing.get_args(annotation)]
    return [word for part in typing.get_args(annotation) if part is not annotation for word in literals(part)]


def describe(annotation: Any) -> str:
    """Describe an annotation in words, for messages."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if TABLE in parts:
            return "a YAML or JSON file of one"
        limits = ", ".join(filter(None, map(bound, parts[1:])))
        return f"{describe(parts[0])} ({limits})" if limits else describe(parts[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else str(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(part) for part in parts if describe(part)))
    if origin in (list, tuple, Sequence):
        return f"a list of {' and '.join(dict.fromkeys(describe(part) for part in parts if part is not Ellipsis))}"
    if origin in (dict, Mapping):
        return f"a table of {describe(parts[0])} to {describe(parts[1])}"
    if origin is Callable:
        return "a table with a _target_"
    return WORDS.get(annotation, "a table with a _target_" if isinstance(annotation, type) else "")


def bound(limit: Any) -> str:
    """Describe a limit of a number, or what a text or a list must be like, in words for messages."""
    if isinstance(limit, Interval):
        return ", ".join(map(bound, limit))
    if isinstance(limit, DocInfo):
        return limit.documentation
    if limit == MinLen(1):
        return "not empty"
    words = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
    word, field = words.get(type(limit), ("", ""))
    return f"{word} {getattr(limit, field)}" if word else ""
