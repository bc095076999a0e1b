"""Where the network is touched."""

from clipadapt.adaptations.base import Adaptation, Composed, ZeroShot
from clipadapt.adaptations.context import Context
from clipadapt.adaptations.features import FeatureAdapter
from clipadapt.adaptations.visual import Padding

__all__ = ["Adaptation", "Composed", "Context", "FeatureAdapter", "Padding", "ZeroShot"]
