"""Training objectives, gradient rules and weight averages."""

from clipadapt.objectives.averages import GaussianAverage
from clipadapt.objectives.base import Objective, Output
from clipadapt.objectives.consistency import HeadConsistency, SelfConsistency, TextConsistency, ZeroShotDistillation
from clipadapt.objectives.cross_modal import CrossModal
from clipadapt.objectives.distillation import Distillation
from clipadapt.objectives.gradients import ProjectedGradient
from clipadapt.objectives.prototypes import PrototypeConstraint
from clipadapt.objectives.start_penalty import StartPenalty
from clipadapt.objectives.supervised import CrossEntropy, DecoupledCrossEntropy
from clipadapt.objectives.view_consistency import ViewConsistency

__all__ = [
    "CrossEntropy",
    "CrossModal",
    "DecoupledCrossEntropy",
    "Distillation",
    "GaussianAverage",
    "HeadConsistency",
    "Objective",
    "Output",
    "ProjectedGradient",
    "PrototypeConstraint",
    "SelfConsistency",
    "StartPenalty",
    "TextConsistency",
    "ViewConsistency",
    "ZeroShotDistillation",
]
