"""What a `_target_` names: only what is trusted, and what its parameters take."""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from clipadapt.errors import UserError, nearest

TRUSTED = ("clipadapt", "torch.optim")


def trusted(allowed: Any) -> tuple[str, ...]:
    """Prefixes of what `_target_` may name: the package's, torch's optimizers, and those a user allows."""
    return (*TRUSTED, *(str(prefix).rstrip(".") for prefix in allowed if isinstance(allowed, list)))


def locate(name: Any, prefixes: Sequence[str]) -> Callable[..., Any]:
    """The class or function that a `_target_` names.

    Raises:
        UserError: it isn't below one of the prefixes, or there is none of that name.
    """
    allowed = ", ".join(prefixes)
    if not isinstance(name, str) or not below(name, prefixes):
        raise UserError(f"{name} is not allowed (allowed: {allowed}; your own: --config-dir, allowed_targets)")
    module, rest = find_module(name)
    found: Any = module
    for part in rest:
        if not hasattr(found, part):
            own = [
                word for word, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
            ]
            raise UserError(f"{module.__name__} has no {part}: {nearest(part, own)}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{name} is neither a class nor a function")
    if not below(f"{getattr(found, '__module__', '')}.", prefixes):
        raise UserError(
            f"{name} is from {getattr(found, '__module__', '?')}, which is not allowed (allowed: {allowed})"
        )
    return found


def below(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted name stands below one of the prefixes."""
    return any(name.startswith(f"{prefix}.") for prefix in prefixes)


def find_module(name: str) -> tuple[types.ModuleType, list[str]]:
    """The innermost module of a dotted name, and the parts of the name that follow it.

    Raises:
        UserError: there is no such module, or it can't be imported.
    """
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            return importlib.import_module(module), parts[count:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise UserError(f"{module} can't be imported: {error}") from error
        except Exception as error:
            raise UserError(f"{module} can't be imported: {type(error).__name__}: {error}") from error
    raise UserError(f"there is no module {parts[0]}")


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a target's parameters; none where they can't be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def by_default(parameter: inspect.Parameter) -> Any:
    """What an unannotated parameter takes: numbers where its default is one, else anything."""
    return float if type(parameter.default) in (int, float) else Any
