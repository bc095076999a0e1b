"""Lazy import of slow packages by third-party modules."""

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

DYNAMO = ("torch._dynamo.utils", "is_compile_supported")
"""The function of torch._dynamo that torchvision imports, for its detection models; it takes longer than the rest."""


@contextmanager
def postponed(package: str, users: Mapping[str, str]) -> Iterator[None]:
    """Hide a package from the imports in the block; the methods that need the package import it at their first call.

    The block must import modules that also work if the package isn't installed. A package that is already imported
    is not hidden, since that would save nothing.

    Args:
        package: name of the slow package.
        users: the methods that need the package, as "Class.method", by the name of their module.

    Raises:
        AttributeError: a module has no such method.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # makes imports of the package fail
    try:
        yield
    finally:
        del sys.modules[package]
    for name, method in users.items():
        _complete_before(sys.modules[name], *method.split("."))


def _complete_before(module: ModuleType, class_name: str, method_name: str) -> None:
    """Wrap a method so that its first call reloads its module, with the hidden package, and removes the wrapper.

    Other modules may hold the class, so the reloaded module gets the old class back. Its methods look names up in the
    module at each call, so they find the package.
    """
    owner = getattr(module, class_name)
    method = getattr(owner, method_name)

    @functools.wraps(method)
    def first(*arguments: Any, **options: Any) -> Any:
        setattr(owner, method_name, method)
        importlib.reload(module)
        setattr(module, class_name, owner)
        return method(*arguments, **options)

    setattr(owner, method_name, first)


@contextmanager
def postponed_function(module: str, name: str) -> Iterator[None]:
    """Let the imports in the block have a function of a slow module that is imported at the function's first call.

    Any other name that the block imports from the module imports it at once, as does a module already imported.

    Args:
        module: full name of the slow module.
        name: the function's name.
    """
    if module in sys.modules:
        yield
        return
    temporary = ModuleType(module)

    def imported(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if sys.modules.get(module) is temporary:
            del sys.modules[module]
        return getattr(importlib.import_module(module), attribute)

    def function(*arguments: Any, **options: Any) -> Any:
        return imported(name)(*arguments, **options)

    vars(temporary).update({name: function, "__getattr__": imported})
    sys.modules[module] = temporary
    try:
        yield
    finally:
        if sys.modules.get(module) is temporary:
            del sys.modules[module]
