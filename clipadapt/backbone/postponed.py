"""Imports that do without a slow package until something needs it."""

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def postponed(package: str, users: Mapping[str, str]) -> Iterator[None]:
    """Hide a package from the imports in the block; what needs it imports it when it is first called.

    The block must import modules that also work where the package isn't installed. A package that is imported already
    is not hidden, since that would save nothing.

    Args:
        package: name of the slow package.
        users: the methods that need it, as "Class.method" by the name of their module.

    Raises:
        AttributeError: a module has no such method.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # the import system's way to say: not to be found
    try:
        yield
    finally:
        del sys.modules[package]
    for name, method in users.items():
        _complete_before(sys.modules[name], *method.split("."))


def _complete_before(module: ModuleType, class_name: str, method_name: str) -> None:
    """Have the first call of a method import its module again, now with all packages; then the method is as it was.

    The class stays the one that other modules hold. Its methods look names up in their module when they are called, so
    that they find what was missing.
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
