"""Objects from nodes that name their class or function."""

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
from hydra.errors import InstantiationException

from clipadapt.config.check import nodes
from clipadapt.config.targets import locate, trusted
from clipadapt.errors import UserError


def build(node: Mapping[str, Any], *arguments: object, allowed: Sequence[str] = ()) -> Any:
    """What a node's `_target_` makes of its other keys; with `_partial_: true`, a function that waits for the rest.

    Args:
        node: plain values; nodes inside it are built first.
        arguments: what comes before the node's keys, such as the CLIP and the task of an adaptation.
        allowed: modules that targets may be from besides the package and torch.optim (`allowed_targets`).

    Raises:
        UserError: a target that isn't allowed, or what the target itself says of its arguments.
    """
    for _, inner in nodes(node):
        locate(inner["_target_"], trusted(allowed))
    try:
        return hydra.utils.instantiate(dict(node), *arguments, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
