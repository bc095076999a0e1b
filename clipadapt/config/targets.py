"""Lookup of the class or function that a `_target_` names, and the annotations of its parameters."""

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from clipadapt.config.groups import Group, group_at
from clipadapt.errors import UserError, nearest

PACKAGE = "clipadapt"


def own_prefixes(allowed: Any) -> tuple[str, ...]:
    """Return the user's own modules that a `_target_` may be from; none if `allowed` isn't a list of texts."""
    listed = allowed if isinstance(allowed, list | tuple) else ()
    return tuple(prefix.rstrip(".") for prefix in listed if isinstance(prefix, str) and prefix.strip("."))


def locate(name: Any, group: Group, allowed: Any = ()) -> Callable[..., Any]:
    """Return the class or function that a `_target_` names.

    Only modules of the group's package and the user's own modules are imported.

    Args:
        name: The dotted name: a module, then a name in it.
        group: The group of allowed targets.
        allowed: The user's own modules (`allowed_targets`).

    Raises:
        UserError: The name isn't below the group's package or an allowed module, doesn't exist, or isn't a class or
            function of the group that is defined in that module.
    """
    prefixes = (group.room, *own_prefixes(allowed))
    if not isinstance(name, str) or not is_public(name) or not below(name, prefixes):
        raise UserError(refusal(name, prefixes))
    place, _, word = name.rpartition(".")
    module = find_module(place, name)
    if word not in vars(module):
        own = [word for word, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
        raise UserError(f"{place} has no {word}: {nearest(word, own)}")
    found = vars(module)[word]
    home = getattr(found, "__module__", None)
    if not isinstance(found, type | types.FunctionType):
        raise UserError(f"{name} is neither a class nor a function")
    if not below(f"{home}.", (place,)) or found.__qualname__ != word:
        raise UserError(
            f"{name} is {found.__qualname__} from {home}, which is not allowed: name it where it is defined"
        )
    if not belongs(found, group):
        raise UserError(f"{name} is not {group.noun}: {wanted(group)}")
    return found


def is_public(name: str) -> bool:
    """Return whether each part of a dotted name is an identifier that does not begin with an underscore."""
    return all(part.isidentifier() and not part.startswith("_") for part in name.split("."))


def below(name: str, prefixes: Sequence[str]) -> bool:
    """Return whether a dotted name stands below one of the prefixes."""
    return any(name.startswith(f"{prefix}.") for prefix in prefixes)


def refusal(name: Any, prefixes: Sequence[str]) -> str:
    """Return the message for a name that is not below the prefixes; a package that doesn't exist is named."""
    parts = name.split(".") if isinstance(name, str) else []
    rooms = [module.name for module in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)]
    if parts[:1] == [PACKAGE] and len(parts) > 2 and parts[1] not in rooms:
        return f"{PACKAGE} has no {parts[1]}: {nearest(parts[1], rooms)}"
    own = "your own modules: --config-dir DIR, in Python config_dir=DIR; allowed_targets"
    return f"{str(name)[:100]} is not allowed (allowed: {', '.join(prefixes)}; {own})"


def find_module(place: str, name: str) -> types.ModuleType:
    """Import the module `place` for the target `name`.

    Raises:
        UserError: The module doesn't exist, or can't be imported.
    """
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not below(f"{place}.", (error.name,)):
            raise UserError(f"{name} can't be imported: {error}") from error
        raise UserError(no_module(error.name, name)) from error
    except Exception as error:
        raise UserError(f"{name} can't be imported: {type(error).__name__}: {error}") from error


def no_module(missing: str, name: str) -> str:
    """Return the message for a target whose module doesn't exist."""
    place, _, word = missing.rpartition(".")
    if not place:
        return f"there is no module {missing}"
    parent = importlib.import_module(place)
    if hasattr(parent, word):
        return f"{name} is not allowed: a _target_ names a class or function of a module, nothing inside of {word}"
    modules = [module.name for module in pkgutil.iter_modules(getattr(parent, "__path__", []))]
    return f"{place} has no {word}: {nearest(word, modules)}"


def belongs(found: type | types.FunctionType, group: Group) -> bool:
    """Return whether a class or function belongs to the group."""
    if isinstance(found, type):
        return group.base_class in found.__mro__[0 if group.itself else 1 :]
    if not group.takes_functions:
        return False
    if below(found.__module__, (PACKAGE,)):
        return f"{found.__module__}.{found.__qualname__}" in group.known_functions
    made = annotations(found).get("return", group.base_class)
    return isinstance(made, type) and issubclass(made, group.base_class)


def wanted(group: Group) -> str:
    """Return the advice for messages: the targets that belong to the group."""
    base = group.base_class
    kind = f"a class derived from {base.__module__}.{base.__qualname__}"
    if not group.takes_functions:
        return f"name {kind}"
    return (
        f"name one of {', '.join(sorted(group.known_functions))}, or in a module of your own {kind}, or what makes it"
    )


def inner_group(path: str, key: str, target: Callable[..., Any], group: Group) -> Group | None:
    """Return the group of an argument of a target, by the argument's place or else by its annotation.

    Args:
        path: The dotted path of the target's settings.
        key: The parameter's name.
        target: A class or function.
        group: The target's group.
    """
    at_place = group_at(f"{path}.{key}")
    if at_place is not None:
        return at_place
    classes = [part for part in union_parts(annotations(target).get(key)) if isinstance(part, type)]
    own = [part for part in classes if part.__module__ not in ("builtins", "types")]
    return Group(f"a {own[0].__name__}", group.room, own[0], itself=True) if len(own) == 1 else None


def union_parts(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or else the annotation itself, without the metadata of `Annotated`."""
    if typing.get_origin(annotation) is Annotated:
        return union_parts(typing.get_args(annotation)[0])
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def annotations(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a target's parameters; an empty dictionary if they can't be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def by_default(parameter: inspect.Parameter) -> Any:
    """Return the annotation to assume for an unannotated parameter: `float` if its default is a number, else `Any`."""
    return float if type(parameter.default) in (int, float) else Any
