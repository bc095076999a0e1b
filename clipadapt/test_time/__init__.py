"""Test-time methods, which adapt to single test images, to batches, along a stream or to a whole set of them."""

from clipadapt.test_time.anchored_mixture import AnchoredMixture
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.boosting import BoostedCaches
from clipadapt.test_time.buffer import PromptBuffer
from clipadapt.test_time.caches import Cache, NegativeCache, RecentNegativeCache
from clipadapt.test_time.labelled_mixture import LabelledMixture
from clipadapt.test_time.mean_shift import MeanShift
from clipadapt.test_time.memories import DualMemory
from clipadapt.test_time.mixture import GaussianMixture
from clipadapt.test_time.named_classes import NamedClassesTuning
from clipadapt.test_time.propagation import LabelPropagation
from clipadapt.test_time.prototypes import DualPrototypes
from clipadapt.test_time.proxies import OnlineProxies
from clipadapt.test_time.reward import RewardTuning
from clipadapt.test_time.stream import Caches
from clipadapt.test_time.tuning import PromptTuning, ReliabilityTuning, WeightedEntropyTuning
from clipadapt.test_time.voting import Voting
from clipadapt.test_time.weight_average import WeightAverageTuning
from clipadapt.test_time.whole_set import WholeSetMethod

__all__ = [
    "AnchoredMixture",
    "BoostedCaches",
    "Cache",
    "Caches",
    "DualMemory",
    "DualPrototypes",
    "GaussianMixture",
    "LabelPropagation",
    "LabelledMixture",
    "MeanShift",
    "NamedClassesTuning",
    "NegativeCache",
    "OnlineProxies",
    "PromptBuffer",
    "PromptTuning",
    "RecentNegativeCache",
    "ReliabilityTuning",
    "RewardTuning",
    "TestTimeMethod",
    "Voting",
    "WeightAverageTuning",
    "WeightedEntropyTuning",
    "WholeSetMethod",
]
