"""Test-time tuning to the entropy of confident views: TPT and C-TPT, TPS, R-TPT."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.episodic import Decay, EpisodicTuning, Rate, Share, ViewOutputs, view_outputs
from clipadapt.test_time.views import Count, averaged, entropy, one_feature


class PromptTuning(EpisodicTuning):
    """TPT: test-time prompt tuning by entropy minimisation (Shu et al., NeurIPS 2022, arXiv:2209.07511).

    The views of lowest entropy are selected before the first step. The objective is the entropy of their mean
    probability; C-TPT (Yoon et al., ICLR 2024, arXiv:2403.14119) subtracts the weighted dispersion of the class
    embeddings. The logits are those of the first view after tuning.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are tuned to at once.
        selection: share of the views that are used.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        dispersion_weight: weight of the dispersion; 0 for TPT.
        select_every_step: whether views are selected anew before each step, as in TPS (Sui et al., WACV 2025,
            arXiv:2403.12952).
    """

    def __init__(
        self,
        views: Count = 64,
        images: Count = 8,
        selection: Share = 0.1,
        steps: Count = 1,
        lr: Rate = 0.005,
        weight_decay: Decay = 0.01,
        dispersion_weight: Annotated[float, Ge(0)] = 0.0,
        select_every_step: bool = False,
    ) -> None:
        super().__init__(views, images, selection, steps, lr, weight_decay)
        self.dispersion_weight = dispersion_weight
        self.select_every_step = select_every_step

    def values(self, outputs: ViewOutputs) -> dict[str, Tensor]:
        """Compute `entropy`, `dispersion` and `objective`, each `[B]`."""
        parts = {
            "entropy": entropy(averaged(outputs.logits)),
            "dispersion": dispersion(outputs.text).reshape(len(outputs.text), -1).mean(dim=1),
        }
        return parts | {"objective": parts["entropy"] - self.dispersion_weight * parts["dispersion"]}


def dispersion(text: Tensor) -> Tensor:
    """Compute the mean distance `[...]` of unit class embeddings `[..., C, D]` from their mean."""
    text = functional.normalize(text.float(), dim=-1)
    return (text - text.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)


class ReliabilityTuning(EpisodicTuning):
    """R-TPT: pointwise entropy, and views weighted by their neighbours (Sheng et al., CVPR 2025, arXiv:2504.11195).

    The objective is the mean of the selected views' own entropies. The logits are the mean over all views after tuning,
    weighted by the softmax of each view's reliability: the mean cosine similarity of its image feature with those of
    its nearest other views. A view is never its own neighbour, as in the paper; the released code masks similarities
    of 1 and above, which rounding decides.

    Args:
        views: number of views of each image: the centre crop, then random crops; more than `neighbours`.
        images: number of images that are tuned to at once.
        selection: share of the views that are used for the objective.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        neighbours: number of nearest other views that determine a view's reliability.
        temperature: temperature of the softmax over reliabilities.

    Raises:
        UserError: there are too few views for the neighbours.
    """

    def __init__(
        self,
        views: Count = 64,
        images: Count = 8,
        selection: Share = 0.1,
        steps: Count = 1,
        lr: Rate = 0.005,
        weight_decay: Decay = 0.01,
        neighbours: Count = 20,
        temperature: Rate = 0.01,
    ) -> None:
        if views <= neighbours:
            raise UserError(
                f"{views} views leave fewer than {neighbours} neighbours for each: set method.test_time.views to at "
                f"least {neighbours + 1}, or method.test_time.neighbours to at most {views - 1}"
            )
        super().__init__(views, images, selection, steps, lr, weight_decay)
        self.neighbours, self.temperature = neighbours, temperature

    def values(self, outputs: ViewOutputs) -> dict[str, Tensor]:
        """Compute the `objective [B]`, the mean of the views' entropies."""
        return {"objective": entropy(outputs.logits).mean(dim=-1)}

    def predict(self, classifier: Classifier, x: Tensor) -> Tensor:
        """Compute the mean logits `[B, C]` of all views, weighted by reliability.

        Raises:
            UserError: the adaptation uses the features of all tokens.
        """
        one_feature(classifier.adaptation)
        outputs = view_outputs(classifier, x)
        with torch.autocast(x.device.type, enabled=False):
            return (self.weights(outputs.image).unsqueeze(-1) * outputs.logits).sum(dim=1)

    def weights(self, features: Tensor) -> Tensor:
        """Compute the weights `[B, V]` of views from their image features `[B, V, D]`."""
        return (self.reliability(features) / self.temperature).softmax(dim=-1)

    def reliability(self, features: Tensor) -> Tensor:
        """Compute the mean cosine similarity `[B, V]` of each view with its nearest other views."""
        unit = functional.normalize(features.float(), dim=-1)
        similarity = unit @ unit.mT
        similarity.diagonal(dim1=-2, dim2=-1).fill_(-1)
        return similarity.topk(self.neighbours, dim=-1).values.mean(dim=-1)


class WeightedEntropyTuning(EpisodicTuning):
    """TTL: entropies of all views, weighted by confidence (Imam et al., WACV 2025, arXiv:2407.15913).

    The objective is the mean of `exp(margin - H) * H` of all views' entropies H in nats, where no gradient goes through
    the weights; they don't sum to one. The logits are those of the first view after tuning.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images in a batch.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        entropy_margin: entropy, in nats, of a view with weight one.
    """

    def __init__(
        self,
        views: Count = 64,
        images: Count = 8,
        steps: Count = 1,
        lr: Rate = 0.005,
        weight_decay: Decay = 0.01,
        entropy_margin: float = 0.4,
    ) -> None:
        super().__init__(views, images, 1.0, steps, lr, weight_decay)
        self.entropy_margin = entropy_margin

    def choose(self, classifier: Classifier, x: Tensor, text: Tensor | None) -> Tensor:
        """Return the indices `[B, V]` of all views; arguments are those of `tune`."""
        return torch.arange(x.shape[1], device=x.device).expand(len(x), -1)

    def values(self, outputs: ViewOutputs) -> dict[str, Tensor]:
        """Compute the `objective [B]`, the mean of the views' weighted entropies."""
        found = entropy(outputs.logits)
        return {"objective": ((self.entropy_margin - found.detach()).exp() * found).mean(dim=-1)}
