"""When it adapts, at test time: how images become class names."""

from clipadapt.predictors.caches import Cache, NegativeCache
from clipadapt.predictors.direct import Predictor
from clipadapt.predictors.mean_shift import MeanShift
from clipadapt.predictors.stream import Caches
from clipadapt.predictors.tuning import PromptTuning
from clipadapt.predictors.views import AtTestTime
from clipadapt.predictors.voting import Voting

__all__ = ["AtTestTime", "Cache", "Caches", "MeanShift", "NegativeCache", "Predictor", "PromptTuning", "Voting"]
