"""A scikit-learn classifier of features: the methods that compute on frozen image features alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from clipadapt.errors import InputError
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.sklearn.answers import LogitsClassifier, as_input_errors
from clipadapt.sklearn.feature_fits import (
    GivenFeatures,
    build_classifier,
    compose_feature_settings,
    fit_to_features,
    needs_validation,
)
from clipadapt.sklearn.labels import MOST_HELD_OUT, check_held_out, counted_labels, hold_out, sorted_classes
from clipadapt.sklearn.learned import load_state
from clipadapt.sklearn.precomputed import PrecomputedEncoder, class_means
from clipadapt.tasks import Classifier


class CLIPFeatureClassifier(LogitsClassifier):
    """A classifier of precomputed image features `[N, D]`, by a method that needs no more than features.

    Such methods are linear_probe, zs_lp, clap, lp_plus_plus, tip_adapter, tip_adapter_f, ape, ape_t, tip_x, gda_clip,
    taskres, clip_adapter, cross_modal, cross_modal_adapter and zero_shot. Fits are those of `clipadapt.finetune` with
    one view of each image.

    Args:
        method: its name.
        class_weights: text features `[C, D]` of the classes, in the order of `classes_`; None takes the mean of the
            unit features of each class in their place.
        logit_scale: the backbone's factor on cosine similarities, where the method has none of its own.
        overrides: settings as on the command line, such as "engine.epochs=50".
        seed: draws what the method draws, and the features that are held out.
        validation_images: features of each class, at most half of them, that are held out of what is learned from, for
            methods that choose on a validation split; None for 4 where the method does, and none where it doesn't.
        cpu: whether to compute on the CPU even if there is a GPU.
        config_dir: a folder with YAML files and modules of your own.

    Attributes:
        classes_: the C labels, sorted.
        n_features_in_: D.

    >>> from clipadapt.sklearn import CLIPFeatureClassifier
    >>> classifier = CLIPFeatureClassifier(cpu=True).fit([[0.0, 1.0], [1.0, 0.0]], ["up", "right"])
    >>> classifier.predict([[0.1, 2.0]]).tolist()
    ['up']
    """

    _classifier: Classifier | None = None

    def __init__(
        self,
        method: str = "linear_probe",
        class_weights: Any = None,
        logit_scale: float = 100.0,
        overrides: Sequence[str] = (),
        seed: int = 1,
        validation_images: int | None = None,
        cpu: bool = False,
        config_dir: str | None = None,
    ) -> None:
        self.method = method
        self.class_weights = class_weights
        self.logit_scale = logit_scale
        self.overrides = overrides
        self.seed = seed
        self.validation_images = validation_images
        self.cpu = cpu
        self.config_dir = config_dir

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "CLIPFeatureClassifier":
        """Fit the method to features `[N, D]` and their labels `[N]`.

        Args:
            X: the features.
            y: the labels.
            sample_weight: weight of each image's loss, `[N]`. Images of weight 0 are left out; only linear_probe counts
                the others by weights that differ.

        Raises:
            ValueError: features, labels, weights or settings that can't be used.
            DivergenceError: a loss that isn't finite.
        """
        features = self._features(X, reset=True)
        kept, y, weights = counted_labels(y, sample_weight, len(features))
        features = features[kept]
        classes, labels = sorted_classes(y)
        with as_input_errors():
            config = compose_feature_settings(self.method, self._overrides(), self.config_dir)
            clip = PrecomputedEncoder(self._text(features, labels, len(classes)), float(self.logit_scale))
            count = check_held_out(self.validation_images)
            if count is None:
                count = MOST_HELD_OUT * needs_validation(config, clip, len(labels))
            samples = split_features(features, labels, weights, count, self.seed)
            state = fit_to_features(config, clip, samples, self.seed)
            classifier = build_classifier(state, self.config_dir)
        self.classes_, self._learned, self._classifier = classes, state.dump(), classifier
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits `[N, C]` of features `[N, D]`."""
        features = self._features(X, reset=False)
        if self._classifier is None:
            self._classifier = build_classifier(load_state(self._learned), self.config_dir)
        device, found = self._classifier.clip.device, list[Tensor]()
        with torch.no_grad():
            text = self._classifier.precompute()
            for some in features.split(MICRO_BATCH):
                # Batches of one size, so that no answer depends on how many are asked for.
                filled = torch.cat([some, some.new_zeros(MICRO_BATCH - len(some), some.shape[1])]).to(device)
                found.append(self._classifier.output(filled, "features", text).logits[: len(some)].float().cpu())
        return torch.cat(found).numpy()

    def _overrides(self) -> tuple[str, ...]:
        overrides = (self.overrides,) if isinstance(self.overrides, str) else tuple(self.overrides)
        return (*overrides, "engine.cpu=true") if self.cpu else overrides

    def _features(self, X: Any, reset: bool) -> Tensor:
        """Return features `[N, D]` of X after scikit-learn's checks."""
        return torch.tensor(validate_data(self, X, reset=reset, dtype=np.float32))

    def _text(self, features: Tensor, labels: list[int], classes: int) -> Tensor:
        """Return the text features `[C, D]`, or what takes their place."""
        if self.class_weights is None:
            return class_means(features, labels, classes)
        given = torch.tensor(check_array(self.class_weights, dtype=np.float32, input_name="class_weights"))
        expected = (classes, features.shape[1])
        if given.shape != expected:
            raise InputError(
                f"class_weights must be [classes, features] = {[*expected]}, a row for each label in their "
                f"sorted order, and it is {[*given.shape]}"
            )
        return given

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle or a copy holds: all but the classifier, which is built again when asked for."""
        return {name: value for name, value in super().__getstate__().items() if name != "_classifier"}


def split_features(
    features: Tensor, labels: list[int], weights: list[float] | None, count: int, seed: int
) -> GivenFeatures:
    """Return samples of which up to `count` of each class are held out to choose on."""
    learned, held = hold_out(labels, count, seed)
    return GivenFeatures(
        features[learned],
        [labels[place] for place in learned],
        None if weights is None else [weights[place] for place in learned],
        (features[held], [labels[place] for place in held]),
    )
