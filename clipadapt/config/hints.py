"""Hints on settings that choose a part of a method by a bare name, where a group of files is to be named."""

from typing import Any

from clipadapt.config.renamed import new_option
from clipadapt.config.tree import options
from clipadapt.errors import nearest

ALWAYS_THERE = ("method.adaptation", "engine.optimizer", "engine.schedule")
"""Keys that every method has a file for, so that another one is chosen without a plus."""

MAY_BE_THERE = ("method.objective", "method.gradient_rule", "method.average", "method.test_time")
"""Keys that a method may have a file for. The folder in `conf` has the name after the dot, as of those above."""


def choice_hint(path: str, value: Any) -> str:
    """Return how the file `value` of a group is chosen for a key; empty for other values and other keys."""
    beside = path.startswith("method.also.")
    if not beside and path not in (*ALWAYS_THERE, *MAY_BE_THERE):
        return ""
    if not isinstance(value, str) or not value.isidentifier():
        return ""
    folder = "adaptation" if beside else path.rpartition(".")[2]
    plus = "" if path in ALWAYS_THERE else "+"
    known = options(folder)
    if value in known:
        return f"; choose it as {plus}{folder}@{path}={value}"
    return f"; choose one as {plus}{folder}@{path}=NAME: {new_option(folder, value) or nearest(value, known)}"
