"""Runs: fitting, evaluation, checkpoints and run directories, through Accelerate."""

from clipadapt.engine.settings import Settings

__all__ = ["Settings"]
