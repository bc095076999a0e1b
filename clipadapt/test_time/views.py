"""Views of test images: their outputs, their entropy, and the selection of confident views."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.errors import UserError
from clipadapt.objectives.base import Output
from clipadapt.tasks.classification import Classifier

Count = Annotated[int, Ge(1)]


def output_of_views(classifier: Classifier, x: Tensor, text: Tensor | None) -> Output:
    """Compute the classifier's outputs for activations `[B, V, ...]`, with all views as one batch."""
    return classifier.output(x.flatten(0, 1), classifier.image_cut, text)


def view_logits(classifier: Classifier, x: Tensor, text: Tensor | None) -> Tensor:
    """Compute logits `[B, V, C]` of activations `[B, V, ...]`."""
    return output_of_views(classifier, x, text).logits.unflatten(0, x.shape[:2])


def one_feature(classifier: Classifier) -> None:
    """Check that the classifier has a single feature for each image.

    Raises:
        UserError: the adaptation uses the features of all tokens.
    """
    if classifier.adaptation.capabilities.all_tokens:
        raise UserError(
            "this adaptation reads a feature for each patch of an image, and what adapts at test time wants one for "
            "the whole image: take another adaptation, or method.test_time=null"
        )


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
