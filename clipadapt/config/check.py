"""Check of settings against the signatures of their targets, before anything is built."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from clipadapt.config.groups import Group, group_at
from clipadapt.config.hints import choice_hint
from clipadapt.config.renamed import new_key
from clipadapt.config.targets import annotations, by_default, inner_group, locate
from clipadapt.config.values import MISSING, check_value
from clipadapt.errors import UserError, nearest
from clipadapt.paths import LocalPath, shorten, why_unwritable

RESERVED = {"_target_", "_partial_"}
NO_PLACE = "is not allowed: nothing can be built here"

RUN = {
    "backbone": dict,
    "data": dict,
    "task": dict,
    "engine": dict,
    "kind": dict,
    "method": dict,
    "shots": Annotated[int, Ge(1)] | Literal["all"],
    "classes": Literal["all", "base"],
    "seed": Annotated[int, Interval(ge=0, lt=2**32)],
    "from": LocalPath | None,
    "output": LocalPath,
    "rerun": bool,
    "allowed_targets": list[str],
    "config_dir": str | None,
}
BACKBONE = {"name": str}
"""Keys that every backbone has; the other keys are those of its family."""
METHOD = {
    "name": str,
    "title": str | None,
    "paper": str | None,
    "arxiv": str | None,
    "adaptation": dict,
    "also": dict,
    "objective": dict | None,
    "gradient_rule": dict | None,
    "average": dict | None,
    "test_time": dict | None,
    "pseudo_labels": Literal["confident", "all"] | None,
    "imbalance": Literal["balanced_sampling", "class_weights", "logit_adjustment"] | None,
    "interpolation": Annotated[float, Interval(ge=0, le=1)] | None,
}
CHOICE = {"by": str, "among": list[str], "minutes": float}
"""Keys that say how the method of a run was chosen."""
TASK = {
    "views": Annotated[int, Ge(0)] | None,
    "augment": Literal["none", "crop", "mirror", "crop_mirror"] | list[Literal["crop", "mirror"]],
    "resize": Literal["crop", "pad", "squash"],
    "pad_colour": str,
    "bands": list[Annotated[int, Ge(1)]] | None,
    "value_range": list[float] | None,
    "skip_broken": bool,
}


def check(config: Mapping[str, Any], saved: bool = False) -> list[str]:
    """Return the problems of composed settings, one sentence each; an empty list if there are none.

    A node with a `_target_` must belong to the group of its place and fit its target's signature: no unknown and no
    missing keys, and values that fit the annotations. Other places must have no `_target_`. Keys outside such nodes
    are checked against the tables above.

    Args:
        config: The settings.
        saved: Whether the settings are a finished run's, whose data may be a task made in Python, with only a name.
    """
    problems = [f"{path} has no value yet: give it as {path}=…" for path, value in leaves(config) if value == MISSING]
    problems += [f"{path} can't be used: {reason}" for path, reason in unwritable_texts(config)]
    problems += check_table("", config, RUN, optional={"experiment", "choice"})
    problems += check_table("choice", config["choice"], CHOICE) if "choice" in config else []
    backbone = config.get("backbone")
    if isinstance(backbone, Mapping):
        problems += check_table("backbone", {key: backbone[key] for key in BACKBONE if key in backbone}, BACKBONE)
    problems += check_table("method", config.get("method"), METHOD)
    problems += check_table("task", config.get("task"), TASK)
    data = config.get("data")
    by_hand = saved and isinstance(data, Mapping) and data.keys() == {"name"} and isinstance(data["name"], str)
    allowed = config.get("allowed_targets", [])
    places = {path: value for path, value in list_places(config) if not (by_hand and path == "data")}
    for path, value in places.items():
        problems += check_place(path, value, allowed)
    strays = [path for path, _ in nodes(config) if not any(path == at or path.startswith(f"{at}.") for at in places)]
    return [*problems, *(f"{path}._target_ {NO_PLACE}" for path in strays)]


def unwritable_texts(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the path and the fault of each text that no file of settings can hold."""
    for path, value in leaves(config):
        for text in texts(value):
            if reason := why_unwritable(text):
                yield path, f"{shorten(text)}: {reason}"


def texts(value: Any) -> Iterator[str]:
    """Yield a text, or the texts in nested lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def list_places(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of each place where an object is built, if it has a value."""
    method = config.get("method")
    also = method.get("also") if isinstance(method, Mapping) else None
    for dotted, table in (("", config), ("method.", method), ("method.also.", also)):
        for key, value in table.items() if isinstance(table, Mapping) else ():
            if group_at(f"{dotted}{key}") is not None and (value is not None or dotted == "method.also."):
                yield f"{dotted}{key}", value


def check_place(path: str, value: Any, allowed: Any) -> list[str]:
    """Return the problems of a value at a place where an object is built."""
    group, name = group_at(path), path.removeprefix("method.also.")
    if name != path and (not name.isidentifier() or name == "adaptation"):
        return [f"{path} is not allowed: a part of a method has a name of letters, digits and _, not '{name}'"]
    if group is None or not is_node(value):
        return [f"{path} does not fit: it must be a table with a _target_{choice_hint(path, value)}"]
    return check_node(path, value, group, allowed)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of the plain values below a node; an empty table counts as a value."""
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def is_node(value: Any) -> bool:
    """Return whether a value is a table with a `_target_`."""
    return isinstance(value, Mapping) and "_target_" in value


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the dotted path and the table of every node with a `_target_`, also inside lists."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    if is_node(value):
        yield path, value
    for key, child in value.items():
        yield from nodes(child, f"{path}.{key}" if path else str(key))


def check_table(path: str, table: Any, kinds: Mapping[str, Any], optional: set[str] | None = None) -> list[str]:
    """Return the problems of a table without a target: `kinds` are the annotations of its keys."""
    if not isinstance(table, Mapping):
        return []  # the check of the parent table reports it
    dotted = f"{path}." if path else ""
    allowed = {*kinds, *(optional or ())}
    strays = [key for key in table if key not in allowed]
    problems = [
        f"there is no key {dotted}{key}: {new_key(f'{dotted}{key}') or nearest(key, allowed)}" for key in strays
    ]
    problems += [f"{dotted}{key} is missing" for key in kinds if key not in table]
    for key in kinds:
        if key in table:
            problems += check_value(f"{dotted}{key}", table[key], kinds[key])
            if is_node(table[key]) and group_at(f"{dotted}{key}") is None:
                problems.append(f"{dotted}{key}._target_ {NO_PLACE}")
    return problems


def check_node(path: str, node: Mapping[str, Any], group: Group, allowed: Any = ()) -> list[str]:
    """Return the problems of a node: a target outside its group, keys and values that don't fit the target.

    Args:
        path: The node's dotted path.
        node: The node.
        group: The group of allowed targets.
        allowed: The user's own modules that targets may be from, too.
    """
    try:
        target = locate(node["_target_"], group, allowed)
    except UserError as error:
        return [f"{path}._target_: {error}"]
    waits = node.get("_partial_", False)
    problems = [] if waits is group.waits else [f"{path}._partial_ must be {str(group.waits).lower()} for {group.noun}"]
    given = {key: value for key, value in node.items() if key not in RESERVED}
    problems += check_call(path, given, target, by_place(target, group.arguments))
    for key, value in given.items():
        inner = inner_group(path, str(key), target, group)
        if is_node(value) and inner is not None:
            problems += check_node(f"{path}.{key}", value, inner, allowed)
            continue
        for stray, found in nodes(value, f"{path}.{key}"):
            problems.append(f"{stray}._target_ {NO_PLACE}: {found['_target_']}")
    return problems


def by_place(target: Callable[..., Any], count: int) -> list[str]:
    """Return the names of a target's first `count` parameters, which get their values by position."""
    parameters = inspect.signature(target).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [part.name for part in parameters if part.kind in kinds][:count]


def check_call(
    path: str, given: Mapping[str, Any], target: Callable[..., Any], supplied: Sequence[str] = ()
) -> list[str]:
    """Return the problems of calling a target with the values given by name.

    Args:
        path: The dotted path of the values.
        given: The values by name.
        target: A class or a function.
        supplied: The names of parameters that the caller fills.
    """
    parameters = inspect.signature(target).parameters.values()
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {part.name: part for part in parameters if part.kind not in fixed and part.name not in supplied}
    needed = [name for name, part in named.items() if part.default is part.empty and name not in given]
    hints = annotations(target)
    problems = []
    for key, value in given.items():
        if key in named:
            problems += check_value(f"{path}.{key}", value, hints.get(key, by_default(named[key])))
        else:
            advice = new_key(f"{path}.{key}") or nearest(key, named)
            problems.append(f"there is no key {path}.{key} for {target.__qualname__}: {advice}")
    return [*problems, *(f"{path}.{name} is missing: {target.__qualname__} needs it" for name in needed)]
