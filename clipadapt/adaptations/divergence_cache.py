"""A cache of support features that also compares zero-shot probabilities."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.cache import LEAST, FeatureCache
from clipadapt.adaptations.searches import first_best, grid, grid_accuracies
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView

LEAST_BETA = 1.0
"""The lowest value of beta's search grid."""


class DivergenceCache(FeatureCache):
    """TIP-X of SuS-X: Tip-Adapter minus divergences (Udandarao et al., ICCV 2023, arXiv:2211.16198, section 3.2).

    From Tip-Adapter's logits, gamma times the sum over each class's keys of their divergences is subtracted. The
    divergence of an image and a key is that of their zero-shot probabilities, `KL(image || key)`, mapped linearly from
    the range of the divergences to the range of the cosines with the keys. Both ranges are those of the validation
    split; without a search, of the keys among themselves.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        alpha: weight of the votes; the search replaces it.
        beta: sharpness of the votes; the search replaces it.
        gamma: weight of the divergences; the search replaces it.
        search: whether alpha, beta and gamma are searched on the validation split.
        temperature: the cosines with the class embeddings are divided by it for the zero-shot probabilities.
        range_of_batch: whether the range of the divergences is that of the images classified together, as in the
            authors' code, so that an image's logits depend on the others of its batch.
        most_alpha: upper end of the grid of alpha, excluded; the grid starts at 0.1.
        alphas: number of values in the grid of alpha.
        most_beta: upper end of the grid of beta, excluded; the grid starts at 1.
        betas: number of values in the grid of beta.
        most_gamma: upper end of the grid of gamma, excluded; the grid starts at 0.1.
        gammas: number of values in the grid of gamma.
        scale: logit scale of the cosines with the class embeddings, used instead of the backbone's.
    """

    gamma: Tensor
    affinity_range: Tensor
    divergence_range: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = LEAST,
        beta: float = LEAST_BETA,
        gamma: float = LEAST,
        search: bool = True,
        temperature: Annotated[float, Gt(0)] = 0.5,
        range_of_batch: bool = False,
        most_alpha: Annotated[float, Gt(LEAST)] = 50.0,
        alphas: Annotated[int, Ge(1)] = 20,
        most_beta: Annotated[float, Gt(LEAST_BETA)] = 50.0,
        betas: Annotated[int, Ge(1)] = 200,
        most_gamma: Annotated[float, Gt(LEAST)] = 30.0,
        gammas: Annotated[int, Ge(1)] = 50,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(clip, task, alpha, beta, search, most_alpha, alphas, scale=scale)
        self.betas, self.gammas = grid(LEAST_BETA, most_beta, betas), grid(LEAST, most_gamma, gammas)
        self.temperature, self.range_of_batch = temperature, range_of_batch
        self.register_buffer("gamma", torch.tensor(float(gamma)))
        self.register_buffer("affinity_range", torch.tensor([0.0, 1.0]))
        self.register_buffer("divergence_range", torch.tensor([0.0, 1.0]))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`: zero-shot logits plus the weighted votes, minus the weighted divergences."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        votes = self.votes(image @ self.keys.T, self.beta, len(text))
        distances = self.class_sums(self.scaled(self.divergence(image, text)), len(text))
        return self.scale * image @ text.T + self.alpha * votes - self.gamma * distances

    def probabilities(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the logarithms `[B, C]` of zero-shot probabilities, for unit features of image and text."""
        return (image @ text.T / self.temperature).log_softmax(dim=-1)

    def divergence(self, image: Tensor, text: Tensor) -> Tensor:
        """Return the divergences `[B, K]` of unit image features `[B, D]` from the keys, by unit text `[C, D]`."""
        logs, own = self.probabilities(image, text), self.probabilities(self.keys, text)
        return (logs.exp() * logs).sum(dim=-1, keepdim=True) - logs.exp() @ own.T

    def scaled(self, divergence: Tensor) -> Tensor:
        """Map divergences `[B, K]` linearly from their range to the range of the cosines."""
        low, high = divergence.aminmax() if self.range_of_batch else self.divergence_range
        least, most = self.affinity_range
        return (divergence - low) / (high - low).clamp(min=torch.finfo().eps) * (most - least) + least

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Measure both ranges; choose alpha, beta and gamma by validation accuracy, ties in this order.

        Ties go to the smallest values. If no image is classified correctly, all are zero.
        """
        text = functional.normalize(learned.text.float(), dim=-1)
        image = functional.normalize(learned.validation.flat()[0], dim=-1) if self.search else self.keys
        self.affinity_range.copy_(torch.stack((image @ self.keys.T).aminmax()))
        self.divergence_range.copy_(torch.stack(self.divergence(image, text).aminmax()))
        if self.search:
            found = self.accuracies(learned.validation, learned.text)
            best = first_best(found, self.alphas, self.betas, self.gammas)
            for buffer, value in zip((self.alpha, self.beta, self.gamma), best, strict=True):
                buffer.fill_(value)

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Return the accuracy on labelled images for each alpha, beta and gamma, a dimension each."""
        image, labels = samples.flat()
        image, text = functional.normalize(image, dim=-1), functional.normalize(text.float(), dim=-1)
        zero_shot, cosines = self.scale * image @ text.T, image @ self.keys.T
        distances = -self.class_sums(self.scaled(self.divergence(image, text)), len(text))

        def terms(beta: float, alpha: float) -> tuple[Tensor, Tensor]:
            return zero_shot + alpha * self.votes(cosines, beta, len(text)), distances

        return grid_accuracies(terms, labels, self.betas, self.alphas, self.gammas).transpose(0, 1)
