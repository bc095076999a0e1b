"""Classification by the mode of an image's views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.views import Count, one_feature, output_of_views

NEIGHBOURS = 0.3
"""Share of the other views, the nearest ones, whose distances determine a view's bandwidth."""
ROUNDS = 5
"""Number of alternations between inlierness and mode, and maximum number of steps for either of them."""
SETTLED = 1e-6
"""Norm of the change below which iterations stop."""
NARROWEST = 1e-12
"""Minimum squared bandwidth, needed since all views of a blank image are the same."""


@dataclass(frozen=True)
class Modes:
    """Modes of the views of B images.

    Attributes:
        mode: modes as unit features, `[B, D]`.
        bandwidth: bandwidth of each view's kernel, `[B, V]`.
        inlierness: inlierness score of each view, `[B, V]`; sums to one.
        weights: weights of the views in the mode's last step, `[B, V]`.
    """

    mode: Tensor
    bandwidth: Tensor
    inlierness: Tensor
    weights: Tensor


class MeanShift(TestTimeMethod):
    """MTA: the class of the mode of an image's views (Zanella & Ben Ayed, CVPR 2024, arXiv:2405.02266, section 3.2).

    Mean-shift steps on unit features alternate with updates of an inlierness score of each view. The score is high for
    views near the mode and for views whose predictions agree with other views, so that outliers get little weight. No
    tensors are trained.

    Args:
        views: number of views of each image: the centre crop, at which the mode starts, then random crops; at least
            five.
        images: number of images in a batch.
        lambda_y: temperature of the inlierness scores.
        lambda_q: weight of the agreement of predictions in the scores.
    """

    def __init__(
        self,
        views: Annotated[int, Ge(5)] = 64,
        images: Count = 8,
        lambda_y: Annotated[float, Gt(0)] = 0.2,
        lambda_q: Annotated[float, Ge(0)] = 4.0,
    ) -> None:
        super().__init__(views, images)
        self.lambda_y, self.lambda_q = lambda_y, lambda_q

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of the modes, given activations `[B, V, ...]` at the image cut.

        Raises:
            UserError: the adaptation uses the features of all tokens.
        """
        one_feature(classifier.adaptation)
        output = output_of_views(classifier, x, text)
        features = functional.normalize(output.image.float(), dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            found = self.find(features.unflatten(0, x.shape[:2]), output.logits.unflatten(0, x.shape[:2]))
        return classifier.logits(found.mode, classifier.class_embeddings(found.mode) if text is None else text)

    def find(self, features: Tensor, logits: Tensor) -> Modes:
        """Find the modes of unit features `[B, V, D]` with logits `[B, V, C]`."""
        probabilities, width = logits.softmax(dim=-1), bandwidth(features)
        affinity = probabilities @ probabilities.mT
        inlierness, mode = torch.full_like(width, 1 / width.shape[1]), features[:, 0]
        before = mode
        for _ in range(ROUNDS):
            density = kernel(features, mode, width)

            def score(y: Tensor, density: Tensor = density) -> Tensor:
                agreement = (affinity @ y.unsqueeze(-1)).squeeze(-1)
                return ((density + self.lambda_q * agreement) / self.lambda_y).softmax(dim=-1)

            inlierness, _ = settle(score, inlierness)

            def shift(mode: Tensor, inlierness: Tensor = inlierness) -> Tensor:
                weights = kernel(features, mode, width) * inlierness
                return functional.normalize((weights.unsqueeze(-2) @ features).squeeze(-2), dim=-1)

            mode, before = settle(shift, mode)
        return Modes(mode, width, inlierness, kernel(features, before, width) * inlierness)


def bandwidth(features: Tensor) -> Tensor:
    """Compute the bandwidth `[B, V]` of each view from the mean squared distance to the nearest other views."""
    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    nearest = squared.sort(dim=-1).values[..., 1 : 1 + int(NEIGHBOURS * (features.shape[1] - 1))]
    return (0.5 * nearest.mean(dim=-1)).clamp_min(NARROWEST).sqrt()


def kernel(features: Tensor, mode: Tensor, width: Tensor) -> Tensor:
    """Compute the Gaussian kernel `[B, V]` of view features around their mode `[B, D]`."""
    squared = (features - mode.unsqueeze(-2)).square().sum(dim=-1)
    return torch.exp(-squared / (2 * width.square()))


def settle(step: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Iterate a step on `x [B, N]`, for each of B rows until the row converges.

    Returns:
        The result `[B, N]`, and the values `[B, N]` before each row's last step.
    """
    going = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
    before = x
    for _ in range(ROUNDS):
        after = step(x)
        x, before, change = torch.where(going, after, x), torch.where(going, x, before), (after - x).norm(dim=-1)
        going = going & (change >= SETTLED).unsqueeze(-1)
    return x, before
