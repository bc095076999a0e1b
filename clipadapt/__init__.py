"""Adapts a frozen CLIP to a new visual task from a handful of labelled images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipadapt.api import finetune, load, load_backbone, load_task
    from clipadapt.studies.compare import compare

__version__ = "0.1.0"
__all__ = ["compare", "finetune", "load", "load_backbone", "load_task"]


def __dir__() -> list[str]:
    """What there is, for tab completion."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import the functions when they are asked for: help and tab completion don't wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'clipadapt' has no attribute '{name}'")
    from clipadapt import api
    from clipadapt.studies import compare

    return getattr(compare if name == "compare" else api, name)
