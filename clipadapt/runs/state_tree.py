"""The state of a fit as JSON and tensors: nested tables, lists and tuples of tensors and plain values."""

from collections import Counter
from typing import Any

from torch import Tensor

from clipadapt.errors import UserError

TENSOR, TABLE, COUNTER, TUPLE = "tensor", "table", "counter", "tuple"


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON from which `decode` makes it again; its tensors are put into `tensors`, by number.

    JSON has neither tensors, tuples nor numbers as keys: each of these becomes a table whose only key says what it is.

    Raises:
        UserError: a value of another type, or another key than text and whole numbers.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, dict) and all(isinstance(key, str | int) for key in value):
        kind = COUNTER if isinstance(value, Counter) else TABLE
        return {kind: [[key, encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        items = [encode(item, tensors) for item in value]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise UserError(
        f"the state of engine.optimizer or engine.schedule has a value of the type {type(value).__name__}, which "
        "no checkpoint can hold: keep it as numbers, text, lists, tables or tensors"
    )


def decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value that `encode` was given.

    Raises:
        ValueError, KeyError: `encode` returned no such value.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == TENSOR:
        return tensors[content]
    if kind == TUPLE:
        return tuple(decode(item, tensors) for item in content)
    table = {key: decode(item, tensors) for key, item in content}
    return {TABLE: dict, COUNTER: Counter}[kind](table)
