"""Test-time methods, which adapt to single test images or along a stream of them."""

from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.buffer import PromptBuffer
from clipadapt.test_time.caches import Cache, NegativeCache
from clipadapt.test_time.mean_shift import MeanShift
from clipadapt.test_time.reward import RewardTuning
from clipadapt.test_time.stream import Caches
from clipadapt.test_time.tuning import PromptTuning, ReliabilityTuning, WeightedEntropyTuning
from clipadapt.test_time.voting import Voting

__all__ = [
    "Cache",
    "Caches",
    "MeanShift",
    "NegativeCache",
    "PromptBuffer",
    "PromptTuning",
    "ReliabilityTuning",
    "RewardTuning",
    "TestTimeMethod",
    "Voting",
    "WeightedEntropyTuning",
]
