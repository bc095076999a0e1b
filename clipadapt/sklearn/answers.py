"""The answers of a classifier from its logits, in scikit-learn's forms, and errors as scikit-learn raises them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from clipadapt.errors import DivergenceError, InputError, UserError, WeightsError, WriteError

AS_THEY_ARE = (InputError, DivergenceError, WeightsError, WriteError)


@contextmanager
def as_input_errors() -> Iterator[None]:
    """Raise what is wrong with images, labels or settings in this block as an InputError, which is a ValueError."""
    try:
        yield
    except AS_THEY_ARE:
        raise
    except UserError as error:
        raise InputError(str(error)) from error


class LogitsClassifier(ClassifierMixin, BaseEstimator):
    """A classifier whose answers follow from logits.

    Attributes:
        classes_: the C labels, sorted.
    """

    classes_: np.ndarray

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits `[N, C]`, of a classifier that is fitted."""
        raise NotImplementedError

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits `[N, C]`; of two classes the difference `[N]` of the second one's and the first one's."""
        check_is_fitted(self)
        with as_input_errors():
            logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities `[N, C]` of the classes, in the order of `classes_`."""
        return np.asarray(softmax(self._all_logits(X), axis=1))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms `[N, C]` of the probabilities."""
        return np.asarray(log_softmax(self._all_logits(X), axis=1))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label `[N]`."""
        logits = self._all_logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def _all_logits(self, X: Any) -> np.ndarray:
        """Return logits `[N, C]` in float64."""
        check_is_fitted(self)
        with as_input_errors():
            return self.logits(X).astype(np.float64)
