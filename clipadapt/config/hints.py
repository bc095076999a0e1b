"""Hints on settings that choose a part of a method by a bare name, where a group of files is to be named."""

from typing import Any

from clipadapt.config.renamed import new_option
from clipadapt.config.tree import options
from clipadapt.errors import nearest

FOLDERS = {
    "method.adaptation": "adaptation",
    "method.objective": "objective",
    "method.gradient_rule": "gradient_rule",
    "method.average": "average",
    "method.test_time": "test_time",
    "engine.optimizer": "optimizer",
    "engine.schedule": "schedule",
}
"""The folder in `conf` of the files for each key."""

ALWAYS_THERE = ("method.adaptation", "engine.optimizer", "engine.schedule")
"""Keys that every method has a file for, so that another one is chosen without a plus."""


def choice_hint(path: str, value: Any) -> str:
    """Return how the file `value` of a group is chosen for a key; empty for other values and other keys."""
    folder = "adaptation" if path.startswith("method.also.") else FOLDERS.get(path)
    if folder is None or not isinstance(value, str) or not value.isidentifier():
        return ""
    plus = "" if path in ALWAYS_THERE else "+"
    known = options(folder)
    if value in known:
        return f"; choose it as {plus}{folder}@{path}={value}"
    return f"; choose one as {plus}{folder}@{path}=NAME: {new_option(folder, value) or nearest(value, known)}"
