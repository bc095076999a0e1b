"""When it adapts, at test time: how images become class names."""

from clipadapt.predictors.direct import Predictor

__all__ = ["Predictor"]
