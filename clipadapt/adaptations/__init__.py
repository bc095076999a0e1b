"""Where the network is touched."""

from clipadapt.adaptations.base import Adaptation, Composed, ZeroShot
from clipadapt.adaptations.cache import FeatureCache
from clipadapt.adaptations.context import ConditionalContext, Context, DeepContext
from clipadapt.adaptations.features import FeatureAdapter
from clipadapt.adaptations.heads import AdaptedHead, LinearHead, Prototypes, TaskResidual
from clipadapt.adaptations.probes import BlendedProbe, LinearProbe
from clipadapt.adaptations.tokens import CoupledTokens, ImageTokens
from clipadapt.adaptations.transport import TransportContext, VisualTransport
from clipadapt.adaptations.visual import Padding, Patch

__all__ = [
    "Adaptation",
    "AdaptedHead",
    "BlendedProbe",
    "Composed",
    "ConditionalContext",
    "Context",
    "CoupledTokens",
    "DeepContext",
    "FeatureAdapter",
    "FeatureCache",
    "ImageTokens",
    "LinearHead",
    "LinearProbe",
    "Padding",
    "Patch",
    "Prototypes",
    "TaskResidual",
    "TransportContext",
    "VisualTransport",
    "ZeroShot",
]
