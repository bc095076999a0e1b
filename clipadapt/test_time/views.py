"""Several views of a test image: how sure each is, and which are kept."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.errors import UserError
from clipadapt.objectives.base import Output
from clipadapt.tasks.classification import Classifier

Count = Annotated[int, Ge(1)]


def output_of_views(classifier: Classifier, x: Tensor, text: Tensor | None) -> Output:
    """What the classifier makes of activations `[B, V, ...]`, all views as one batch."""
    return classifier.output(x.flatten(0, 1), classifier.image_cut, text)


def view_logits(classifier: Classifier, x: Tensor, text: Tensor | None) -> Tensor:
    """Activations `[B, V, ...]` to logits `[B, V, C]`."""
    return output_of_views(classifier, x, text).logits.unflatten(0, x.shape[:2])


def one_feature(classifier: Classifier) -> None:
    """Refuse what has more than one feature for an image.

    Raises:
        UserError: the adaptation reads the features of all tokens.
    """
    if classifier.adaptation.capabilities.all_tokens:
        raise UserError(
            "this adaptation reads a feature for each patch of an image, and what adapts at test time wants one for "
            "the whole image: take another adaptation, or method.test_time=null"
        )


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the softmax of logits `[..., C]`, `[...]`."""
    logs = logits.log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def averaged(logits: Tensor) -> Tensor:
    """Logits `[..., C]` whose softmax is the mean probability of views with logits `[..., V, C]`."""
    return logits.log_softmax(dim=-1).logsumexp(dim=-2)


def most_confident(logits: Tensor, share: float) -> Tensor:
    """The int(V * share) views of lowest entropy, at least one, the surest first.

    Args:
        logits: `[..., V, C]`.
        share: of the views.

    Returns:
        Their indices, `[..., K]`.
    """
    count = max(1, int(logits.shape[-2] * share))
    return entropy(logits).sort(dim=-1, stable=True).indices[..., :count]


def gather_views(x: Tensor, views: Tensor) -> Tensor:
    """Of `x [B, V, ...]` the views with indices `[B, K]`, `[B, K, ...]`."""
    return x[torch.arange(len(x), device=x.device)[:, None], views]
