"""Views of test images: their outputs, their entropy, and the selection of confident views."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.objectives.base import Output
from clipadapt.tasks.classification import Classifier

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class ViewSummary:
    """Features and predictions of B test images, averaged over each image's most confident views.

    For a single image, the first dimension is missing; for single views, the views are a further one, `[B, V, ...]`.

    Attributes:
        feature: mean of the views' unit features, `[B, D]`.
        logits: mean of the views' logits, `[B, C]`.
        probability: mean of the views' probabilities, `[B, C]`.
        entropy: entropy of `probability` in nats, `[B]`.
    """

    feature: Tensor
    logits: Tensor
    probability: Tensor
    entropy: Tensor

    def __getitem__(self, place: int | slice | tuple[int | slice, ...]) -> "ViewSummary":
        """Return the summary of one image, or of other places of the first dimensions."""
        return ViewSummary(self.feature[place], self.logits[place], self.probability[place], self.entropy[place])

    @property
    def uncertainty(self) -> Tensor:
        """The entropy in nats over log2 of the number of classes, as in the authors' code: at most ln 2, `[B]`."""
        return self.entropy / math.log2(self.logits.shape[-1])

    def confident(self, share: float) -> "ViewSummary":
        """Return the most confident views `[B, K]` of `[B, V]`, in order of increasing entropy."""
        chosen = most_confident(self.logits, share)
        parts = (self.feature, self.logits, self.probability, self.entropy)
        return ViewSummary(*(gather_views(part, chosen) for part in parts))

    def averaged(self) -> "ViewSummary":
        """Return the average over views, `[B]` of `[B, V]`."""
        return averaged_views(self.feature, self.logits)

    def detached(self) -> "ViewSummary":
        """Return the summary without gradients."""
        return ViewSummary(*(part.detach() for part in (self.feature, self.logits, self.probability, self.entropy)))


def averaged_views(features: Tensor, logits: Tensor) -> ViewSummary:
    """Return the average over views with unit features `[..., K, D]` and logits `[..., K, C]`."""
    mean = averaged(logits)
    return ViewSummary(features.mean(dim=-2), logits.mean(dim=-2), mean.softmax(dim=-1), entropy(mean))


def summarise_views(classifier: Classifier, x: Tensor, text: Tensor | None) -> ViewSummary:
    """Return features and predictions of each view, `[B, V]`, given activations `[B, V, ...]`."""
    output = output_of_views(classifier, x, text)
    features = functional.normalize(output.image.float(), dim=-1).unflatten(0, x.shape[:2])
    logits = output.logits.unflatten(0, x.shape[:2])
    return ViewSummary(features, logits, logits.softmax(dim=-1), entropy(logits))


def output_of_views(classifier: Classifier, x: Tensor, text: Tensor | None) -> Output:
    """Compute the classifier's outputs for activations `[B, V, ...]`, with all views as one batch."""
    return classifier.output(x.flatten(0, 1), classifier.image_cut, text)


def view_logits(classifier: Classifier, x: Tensor, text: Tensor | None) -> Tensor:
    """Compute logits `[B, V, C]` of activations `[B, V, ...]`."""
    return output_of_views(classifier, x, text).logits.unflatten(0, x.shape[:2])


def one_feature(adaptation: Adaptation) -> None:
    """Check that an adaptation has a single feature for each image.

    Raises:
        UserError: it uses the features of all tokens.
    """
    needs = adaptation.capabilities
    if needs.all_tokens or needs.several_features:
        raise UserError(
            "this adaptation reads several features of an image, as of its patches, and what adapts at test time wants "
            "one for the whole image: take another adaptation, or method.test_time=null"
        )


def shared_embeddings(adaptation: Adaptation) -> None:
    """Check that all images share the class embeddings of an adaptation.

    Raises:
        UserError: the adaptation has others for each image.
    """
    if adaptation.capabilities.conditional:
        raise UserError(
            "this adaptation has other class embeddings for each image, and this test-time method starts from those "
            "that all images share: take another adaptation, or test_time@method.test_time=tda"
        )


def unit_embeddings(text: Tensor | None) -> Tensor:
    """Return class embeddings that all images share as unit vectors `[C, D]` in float32."""
    assert text is not None, "as `shared_embeddings` has checked"
    return functional.normalize(text.float(), dim=-1)


def of_classes(classifier: Classifier, values: Tensor) -> Tensor:
    """Return the rows of the classifier's classes, of values `[C, ...]` of all classes that the adaptation has."""
    return values if classifier.places is None else values[classifier.places]


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return finite logarithms of probabilities, whose softmax is these probabilities divided by their sum."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def entropy(logits: Tensor) -> Tensor:
    """Compute the entropy `[...]` in nats of the softmax of logits `[..., C]`."""
    logs = logits.log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def averaged(logits: Tensor) -> Tensor:
    """Return logits `[..., C]` whose softmax is the mean probability of views with logits `[..., V, C]`."""
    return logits.log_softmax(dim=-1).logsumexp(dim=-2)


def most_confident(logits: Tensor, share: float) -> Tensor:
    """Select the int(V * share) views of lowest entropy, at least one.

    Args:
        logits: logits of the views, `[..., V, C]`.
        share: share of the views to select.

    Returns:
        Indices of the selected views in order of increasing entropy, `[..., K]`.
    """
    return least(entropy(logits), share)


def least(values: Tensor, share: float) -> Tensor:
    """Return the indices `[..., K]` of the int(V * share) least of values `[..., V]`, at least one, in order."""
    return values.sort(dim=-1, stable=True).indices[..., : max(1, int(values.shape[-1] * share))]


def gather_views(x: Tensor, views: Tensor) -> Tensor:
    """Return the views of `x [B, V, ...]` at indices `[B, K]`, as `[B, K, ...]`."""
    return x[torch.arange(len(x), device=x.device)[:, None], views]
