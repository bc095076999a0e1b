"""Adaptations: learned changes to a frozen CLIP."""

from clipadapt.adaptations.attention import ParameterFreeAttention
from clipadapt.adaptations.base import Adaptation, FirstTemplate, ZeroShot
from clipadapt.adaptations.block_adapters import BlockAdapters
from clipadapt.adaptations.cache import FeatureCache
from clipadapt.adaptations.class_aware import ClassAwareContext
from clipadapt.adaptations.composed import Composed
from clipadapt.adaptations.context import ConditionalContext, Context, DeepContext
from clipadapt.adaptations.decoupled import DecoupledHead
from clipadapt.adaptations.descriptions import ClassDescriptions, RandomTexts
from clipadapt.adaptations.divergence_cache import DivergenceCache
from clipadapt.adaptations.features import FeatureAdapter
from clipadapt.adaptations.gaussian import GaussianClassifier
from clipadapt.adaptations.heads import AdaptedHead, LateClassWeights, LearnedClassWeights, LinearHead, TaskResidual
from clipadapt.adaptations.labelled_images import LabelledImages
from clipadapt.adaptations.probes import LinearProbe, TextBlendedProbe
from clipadapt.adaptations.propagation import InductiveLabelPropagation
from clipadapt.adaptations.refined_cache import RefinedCache
from clipadapt.adaptations.representation import RepresentationTokens
from clipadapt.adaptations.residual_cache import ResidualCache
from clipadapt.adaptations.sentences import ClassSentences
from clipadapt.adaptations.shared_adapters import SharedAdapters
from clipadapt.adaptations.shift import PrototypeShift
from clipadapt.adaptations.support_memory import SupportMemory
from clipadapt.adaptations.tokens import CoupledPrompts, ImageTokens
from clipadapt.adaptations.transport import TransportContext, VisualTransport
from clipadapt.adaptations.visual import Patch, PixelFrame

__all__ = [
    "Adaptation",
    "AdaptedHead",
    "BlockAdapters",
    "ClassAwareContext",
    "ClassDescriptions",
    "ClassSentences",
    "Composed",
    "ConditionalContext",
    "Context",
    "CoupledPrompts",
    "DecoupledHead",
    "DeepContext",
    "DivergenceCache",
    "FeatureAdapter",
    "FeatureCache",
    "FirstTemplate",
    "GaussianClassifier",
    "ImageTokens",
    "InductiveLabelPropagation",
    "LabelledImages",
    "LateClassWeights",
    "LearnedClassWeights",
    "LinearHead",
    "LinearProbe",
    "ParameterFreeAttention",
    "Patch",
    "PixelFrame",
    "PrototypeShift",
    "RandomTexts",
    "RefinedCache",
    "RepresentationTokens",
    "ResidualCache",
    "SharedAdapters",
    "SupportMemory",
    "TaskResidual",
    "TextBlendedProbe",
    "TransportContext",
    "VisualTransport",
    "ZeroShot",
]
