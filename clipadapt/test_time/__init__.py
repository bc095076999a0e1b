"""Test-time methods, which adapt to single test images, along a stream of them, or to a whole set of them."""

from clipadapt.test_time.anchored_mixture import AnchoredMixture
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.buffer import PromptBuffer
from clipadapt.test_time.caches import Cache, NegativeCache
from clipadapt.test_time.labelled_mixture import LabelledMixture
from clipadapt.test_time.mean_shift import MeanShift
from clipadapt.test_time.mixture import GaussianMixture
from clipadapt.test_time.propagation import LabelPropagation
from clipadapt.test_time.reward import RewardTuning
from clipadapt.test_time.stream import Caches
from clipadapt.test_time.tuning import PromptTuning, ReliabilityTuning, WeightedEntropyTuning
from clipadapt.test_time.voting import Voting
from clipadapt.test_time.whole_set import WholeSetMethod

__all__ = [
    "AnchoredMixture",
    "Cache",
    "Caches",
    "GaussianMixture",
    "LabelPropagation",
    "LabelledMixture",
    "MeanShift",
    "NegativeCache",
    "PromptBuffer",
    "PromptTuning",
    "ReliabilityTuning",
    "RewardTuning",
    "TestTimeMethod",
    "Voting",
    "WeightedEntropyTuning",
    "WholeSetMethod",
]
