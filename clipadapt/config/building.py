"""Build objects from nodes with a `_target_`."""

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from clipadapt.config.check import RESERVED, is_node, nodes
from clipadapt.config.groups import Group, group_at
from clipadapt.config.targets import inner_group, locate
from clipadapt.errors import UserError


def build(node: Mapping[str, Any], *arguments: object, place: str, allowed: Sequence[str] = ()) -> Any:
    """Call a node's `_target_` with its other keys; for a group with `waits`, return the partial function instead.

    Args:
        node: Plain values; nodes among them are built first.
        arguments: Positional arguments before the node's keys, such as the CLIP and the task of an adaptation.
        place: The node's place in the settings, which determines the allowed targets: see `config.groups`.
        allowed: The user's own modules that targets may be from, too (`allowed_targets`).

    Raises:
        UserError: A target isn't allowed here, or the target itself refuses its arguments.
    """
    group = group_at(place)
    if group is None:
        raise ValueError(f"nothing is built at {place}")
    return _build(node, arguments, place, group, allowed)


def target_at(node: Mapping[str, Any], place: str, allowed: Sequence[str] = ()) -> Any:
    """Return the class or function that a node's `_target_` names, without calling it; arguments as of `build`."""
    group = group_at(place)
    if group is None:
        raise ValueError(f"nothing is built at {place}")
    return locate(node["_target_"], group, allowed)


def _build(
    node: Mapping[str, Any], arguments: Sequence[object], path: str, group: Group, allowed: Sequence[str]
) -> Any:
    target = locate(node["_target_"], group, allowed)
    given = {key: value for key, value in node.items() if key not in RESERVED}
    for key, value in given.items():
        inner = inner_group(path, key, target, group)
        if is_node(value) and inner is not None:
            given[key] = _build(value, (), f"{path}.{key}", inner, allowed)
            continue
        for stray, found in nodes(value, f"{path}.{key}"):
            raise UserError(f"{found['_target_']} is not allowed: nothing can be built at {stray}")
        given[key] = copy.deepcopy(value)
    return functools.partial(target, *arguments, **given) if group.waits else target(*arguments, **given)
