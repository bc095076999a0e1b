"""Runs on a prepared task: fitting and evaluation, through Accelerate."""

from clipadapt.engine.settings import Settings

__all__ = ["Settings"]
