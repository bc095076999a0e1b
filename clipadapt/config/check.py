"""Settings held against the signatures of what they are for, before anything is built."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval

from clipadapt.config.targets import annotations, by_default, locate, trusted
from clipadapt.config.values import MISSING, check_value
from clipadapt.errors import UserError, nearest

RESERVED = {"_target_", "_partial_"}
SUPPLIED = ("clip", "task")

RUN = {
    "backbone": dict,
    "data": dict,
    "engine": dict,
    "method": dict,
    "shots": Annotated[int, Ge(1)],
    "classes": Literal["all", "base"],
    "seed": Annotated[int, Interval(ge=0, lt=2**32)],
    "output": str,
    "rerun": bool,
    "allowed_targets": list[str],
    "config_dir": str | None,
}
BACKBONE = {"name": str, "pretrained": str | None, "seed": Annotated[int, Interval(ge=0, lt=2**32)]}
METHOD = {
    "name": str,
    "title": str | None,
    "paper": str | None,
    "arxiv": str | None,
    "adaptation": dict,
    "also": dict,
    "objective": dict,
    "gradient_rule": dict | None,
    "average": dict | None,
    "test_time": dict | None,
    "pseudo_labels": Literal["confident", "all"] | None,
    "interpolation": Annotated[float, Interval(ge=0, le=1)] | None,
}
TASK_KEYS = {"views": Annotated[int, Ge(0)] | None, "skip_broken": bool}
"""Keys of every data YAML that its source doesn't get: they say how a task is made of it."""


def check(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with composed settings, one sentence a problem; empty if nothing is.

    Every node with a `_target_` is bound to its target's signature: names both ways, values against annotations. The
    other keys are held against the tables above.
    """
    problems = [f"{path} has no value yet: give it as {path}=…" for path, value in leaves(config) if value == MISSING]
    problems += check_table("", config, RUN, optional={"experiment"})
    problems += check_table("backbone", config.get("backbone"), BACKBONE)
    problems += check_table("method", config.get("method"), METHOD)
    data = config.get("data")
    if isinstance(data, Mapping):
        given = [key for key in TASK_KEYS if key in data]
        problems += check_table("data", {key: data[key] for key in given}, {key: TASK_KEYS[key] for key in given})
    for path, node in nodes(config):
        own = of_the_source(node) if path == "data" else node
        problems += check_node(path, own, trusted(config.get("allowed_targets", [])))
    return problems


def of_the_source(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings below `data` that its source gets."""
    return {key: value for key, value in data.items() if key not in TASK_KEYS}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths of the plain values below a node; an empty table counts as one."""
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def nodes(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted paths of the nodes with a `_target_`, wherever they are: Hydra finds those in lists, too."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    if "_target_" in value:
        yield path, value
    for key, child in value.items():
        yield from nodes(child, f"{path}.{key}" if path else str(key))


def check_table(path: str, table: Any, kinds: Mapping[str, Any], optional: set[str] | None = None) -> list[str]:
    """Problems of a node without a target: `kinds` are the annotations of its keys."""
    if not isinstance(table, Mapping):
        return []  # the table above says so
    dotted = f"{path}." if path else ""
    allowed = {*kinds, *(optional or ())}
    problems = [f"there is no key {dotted}{key}: {nearest(key, allowed)}" for key in table if key not in allowed]
    problems += [f"{dotted}{key} is missing" for key in kinds if key not in table]
    for key in kinds:
        if key in table:
            problems += check_value(f"{dotted}{key}", table[key], kinds[key])
    return problems


def check_node(path: str, node: Mapping[str, Any], prefixes: Sequence[str]) -> list[str]:
    """Problems of a node with a target: a target that isn't allowed or there, keys and values that don't fit it."""
    try:
        target = locate(node["_target_"], prefixes)
    except UserError as error:
        return [f"{path}._target_: {error}"]
    given = {key: value for key, value in node.items() if key not in RESERVED}
    return check_call(path, given, target, SUPPLIED if adapts(path) else (), partial=bool(node.get("_partial_")))


def check_call(
    path: str, given: Mapping[str, Any], target: Callable[..., Any], supplied: Sequence[str] = (), partial: bool = False
) -> list[str]:
    """Problems of calling a target with the values given by name.

    Args:
        path: where the values stand.
        given: the values.
        target: a class or a function.
        supplied: names of parameters that get their values elsewhere.
        partial: whether parameters may stay open.
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
            known = {*named} - {*(needed if partial else ())}
            problems.append(f"there is no key {path}.{key} for {target.__qualname__}: {nearest(key, known)}")
    missing = () if partial else needed
    return [*problems, *(f"{path}.{name} is missing: {target.__qualname__} needs it" for name in missing)]


def adapts(path: str) -> bool:
    """Whether the node at a path is an adaptation or an objective, which are built with a CLIP and a task of ours."""
    return path in ("method.adaptation", "method.objective") or path.startswith("method.also.")
