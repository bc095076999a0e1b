"""What is minimised."""

from clipadapt.objectives.base import Objective, Output
from clipadapt.objectives.supervised import CrossEntropy

__all__ = ["CrossEntropy", "Objective", "Output"]
