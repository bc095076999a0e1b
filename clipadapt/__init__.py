"""Adapts a frozen CLIP to a new visual task from a handful of labelled images."""

from typing import TYPE_CHECKING, Any

from clipadapt.errors import DataError, DivergenceError, SettingsError, UserError, WeightsError

if TYPE_CHECKING:
    from clipadapt.api import Predictor, choose, compare, evaluate, export, finetune, load, load_backbone, load_task

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "DivergenceError",
    "Predictor",
    "SettingsError",
    "UserError",
    "WeightsError",
    "choose",
    "compare",
    "evaluate",
    "export",
    "finetune",
    "load",
    "load_backbone",
    "load_task",
]


def __dir__() -> list[str]:
    """Return the public names, for tab completion."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import the functions on first use: help and tab completion don't wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'clipadapt' has no attribute '{name}'")
    from clipadapt import api

    return getattr(api, name)
