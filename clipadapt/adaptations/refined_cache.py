"""A cache of support features on the channels that tell the classes apart."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.cache import LEAST, FeatureCache
from clipadapt.adaptations.searches import first_best, grid, grid_accuracies
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView

SHARE = 500 / 1024
"""The share of channels kept where their number isn't set: the authors' for ImageNet, on RN50."""
SMOOTHING = 1e-6
"""Added to both probabilities of the divergence."""


class RefinedCache(FeatureCache):
    """APE: Tip-Adapter on chosen channels, with weighted keys (Zhu et al., ICCV 2023, arXiv:2304.01195).

    Only the votes use the channels, of images, keys and text, which are normalised again; the zero-shot logits use all.
    A key's votes are multiplied by `exp(gamma d)`, with the divergence d, to base 2, of its label from its zero-shot
    probabilities: a key that CLIP finds unlike its class weighs more.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        alpha: weight of the votes; the search replaces it.
        beta: sharpness of the votes; the search replaces it.
        gamma: exponent of the keys' divergences; the search replaces it.
        search: whether alpha, beta and gamma are searched on the validation split.
        channels: number of channels kept; None for 500 of 1024.
        similarity_weight: weight of the similarity of classes in the score of a channel.
        variance_weight: weight of the variance of the text in the score of a channel.
        most_alpha: upper end of the grid of alpha, excluded; the grid starts at 0.1.
        alphas: number of values in the grid of alpha.
        most_beta: upper end of the grid of beta, excluded; the grid starts at 0.1.
        betas: number of values in the grid of beta.
        most_gamma: upper end of the grid of gamma, excluded; the grid starts at 0.
        gammas: number of values in the grid of gamma.
        scale: logit scale of the cosines with the class embeddings, used instead of the backbone's.

    Raises:
        UserError: the features have fewer channels than shall be kept.
    """

    gamma: Tensor
    mask: Tensor
    divergence: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = 3.0,
        beta: float = 1.0,
        gamma: float = 0.1,
        search: bool = True,
        channels: Annotated[int, Ge(1)] | None = None,
        similarity_weight: float = 0.7,
        variance_weight: float = 0.3,
        most_alpha: Annotated[float, Gt(LEAST)] = 7.0,
        alphas: Annotated[int, Ge(1)] = 20,
        most_beta: Annotated[float, Gt(LEAST)] = 7.0,
        betas: Annotated[int, Ge(1)] = 200,
        most_gamma: Annotated[float, Gt(0)] = 0.5,
        gammas: Annotated[int, Ge(1)] = 5,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(clip, task, alpha, beta, search, most_alpha, alphas, most_beta, betas, scale=scale)
        self.gammas, self.weights = grid(0.0, most_gamma, gammas), (similarity_weight, variance_weight)
        width = self.keys.shape[-1]
        self.channels = kept_channels(channels, width)
        self.register_buffer("gamma", torch.tensor(float(gamma)))
        self.register_buffer("mask", torch.ones(width))
        self.register_buffer("divergence", torch.zeros(len(self.keys)))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`: zero-shot logits on all channels plus the weighted votes on those kept."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        votes = self.weighted_votes(self.cosines(image, self.keys), self.beta, self.gamma, len(text))
        return self.scale * image @ text.T + self.alpha * votes

    def weighted_votes(self, cosines: Tensor, beta: Tensor | float, gamma: Tensor | float, classes: int) -> Tensor:
        """Return the votes `[B, C]` of `votes`, each multiplied by its key's weight."""
        return self.class_sums((beta * (cosines - 1)).exp() * (gamma * self.divergence).exp(), classes)

    def cosines(self, first: Tensor, second: Tensor) -> Tensor:
        """Return cosines `[M, N]` of features `[M, D]` and `[N, D]` on the channels that are kept."""
        return functional.normalize(first * self.mask, dim=-1) @ functional.normalize(second * self.mask, dim=-1).T

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Choose channels and weigh the keys; choose beta, alpha and gamma by validation accuracy, ties in this order.

        Ties go to the smallest values. If no image is classified correctly, all are zero, as in the authors' code.
        """
        self.refine(learned.text)
        if self.search:
            found = self.accuracies(learned.validation, learned.text)
            best = first_best(found, self.betas, self.alphas, self.gammas)
            for buffer, value in zip((self.beta, self.alpha, self.gamma), best, strict=True):
                buffer.fill_(value)

    def refine(self, text: Tensor) -> None:
        """Choose the channels with the best scores and compute the keys' divergences, by class embeddings `[C, D]`."""
        text = functional.normalize(text.float(), dim=-1)
        self.mask.zero_().index_fill_(0, self.scores(text).topk(self.channels).indices, 1.0)
        own = self.key_probabilities(text).gather(1, self.labels[:, None]).squeeze(1)
        self.divergence.copy_(torch.log2((1 + SMOOTHING) / (own + SMOOTHING)))

    def scores(self, text: Tensor) -> Tensor:
        """Return the score `[D]` of each channel: variance of the unit text `[C, D]` minus similarity of classes."""
        return channel_scores(text, self.similarity(text), self.weights)

    def similarity(self, text: Tensor) -> Tensor:
        """Return for each channel `[D]` the mean product of two classes' members: unit text `[C, D]` and keys."""
        counts = 1 + self.labels.bincount(minlength=len(text))
        return mean_products(text.index_add(0, self.labels, self.keys) / counts[:, None])

    def key_probabilities(self, text: Tensor) -> Tensor:
        """Return the probabilities `[K, C]` of the classes for each key, without logit scale, on the channels kept."""
        return self.cosines(self.keys, text).softmax(dim=-1)

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Return the accuracy on labelled images for each beta, alpha and gamma, a dimension each."""
        image, labels = samples.flat()
        image, text = functional.normalize(image, dim=-1), functional.normalize(text.float(), dim=-1)
        zero_shot, cosines = self.scale * image @ text.T, self.cosines(image, self.keys)

        def terms(beta: float, gamma: float) -> tuple[Tensor, Tensor]:
            return zero_shot, self.weighted_votes(cosines, beta, gamma, len(text))

        return grid_accuracies(terms, labels, self.betas, self.gammas, self.alphas).transpose(1, 2)


def kept_channels(channels: int | None, width: int) -> int:
    """Return the number of channels kept of `width`; None for the authors' share.

    Raises:
        UserError: there are fewer channels.
    """
    if channels is not None and channels > width:
        raise UserError(f"method.adaptation.channels={channels} are more than the {width} channels of the features")
    return max(1, round(SHARE * width)) if channels is None else channels


def channel_scores(text: Tensor, similarity: Tensor, weights: tuple[float, float]) -> Tensor:
    """Return the score `[D]` of each channel: variance of the unit text `[C, D]` minus similarity of classes `[D]`."""
    return weights[1] * text.var(dim=0, correction=min(1, len(text) - 1)) - weights[0] * similarity


def mean_products(classes: Tensor) -> Tensor:
    """Return for each channel `[D]` the mean product over ordered pairs of different classes, of vectors `[C, D]`."""
    pairs = len(classes) * (len(classes) - 1)
    return (classes.sum(dim=0).square() - classes.square().sum(dim=0)) / max(1, pairs)
