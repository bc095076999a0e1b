"""Classes as Gaussians over all test images, with zero-shot probabilities and a graph of near images."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.graphs import NearestImages
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import IMAGES, LabelledGraph, WholeSetMethod

NARROWEST = 1e-12
"""Minimum variance, needed since all images of a set may be the same."""


@dataclass(frozen=True)
class Mixture:
    """Gaussians of C classes over N images.

    Attributes:
        logs: logarithms of the assignments of images to classes, `[N, C]`.
        means: unit means of the classes, `[C, D]`.
        variance: diagonal covariance of all classes, `[D]`, or of each, `[C, D]`.
        weight: weight of the images beside the text in each class's Gaussian, `[C]`; None where the text has none.
    """

    logs: Tensor
    means: Tensor
    variance: Tensor
    weight: Tensor | None = None


class MixtureMethod(WholeSetMethod):
    """A base class of Gaussian mixtures: soft assignments `[N, C]` of the images to classes alternate with Gaussians.

    Args:
        images: as of `WholeSetMethod`.
        neighbours: number of other images that each image has an edge to.
        iterations: number of updates of the Gaussians.
        inner_iterations: number of updates of the assignments before each of them, and after the last.
        temperature: divisor of log-likelihoods in the assignments.
        exponent: of the zero-shot probabilities in the assignments.
        graph_weight: weight of the graph.
        scale: logit scale of zero-shot probabilities, used instead of the backbone's.
    """

    def __init__(
        self,
        images: Count,
        neighbours: Count,
        iterations: Count,
        inner_iterations: Count,
        temperature: float,
        exponent: float,
        graph_weight: float,
        scale: float,
    ) -> None:
        super().__init__(images)
        self.neighbours, self.iterations, self.inner_iterations = neighbours, iterations, inner_iterations
        self.temperature, self.exponent, self.graph_weight, self.scale = temperature, exponent, graph_weight, scale

    def compute_logits(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Tensor:
        """Compute the logarithms `[N, C]` of the assignments of unit features `[N, D]`."""
        return deque(self.steps(features, text, adaptation), maxlen=1).pop().logs

    def steps(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Iterator[Mixture]:
        """Yield the mixture at its start and after each update; arguments as of `compute_logits`."""
        raise NotImplementedError

    def prior(self, features: Tensor, text: Tensor) -> Tensor:
        """Return the logarithms `[N, C]` of zero-shot probabilities."""
        return (self.scale * features @ text.T).log_softmax(dim=-1)

    def graph(self, features: Tensor) -> NearestImages:
        """Return the edges of each image to its nearest other ones, given unit features `[N, D]`."""
        return NearestImages.find(features, features, self.neighbours, skip=1)

    def assign(self, state: Mixture, prior: Tensor, features: Tensor, graph: NearestImages | LabelledGraph) -> Tensor:
        """Return the logarithms `[N, C]` of assignments after `inner_iterations` updates, all images at once.

        Args:
            state: the Gaussians, and the assignments before.
            prior: logarithms of the zero-shot probabilities, `[N, C]`.
            features: `[N, D]`.
            graph: the graph of near images.
        """
        fixed = self.exponent * prior + self.likelihoods(features, state) / self.temperature
        logs = state.logs
        for _ in range(self.inner_iterations):
            near = graph.near(logs.exp())
            logs = (fixed + self.graph_weight / (2 * self.neighbours) * near).log_softmax(dim=-1)
        return logs

    def likelihoods(self, features: Tensor, state: Mixture) -> Tensor:
        """Return the log-likelihoods `[N, C]` of features `[N, D]`, without the variance's determinant."""
        return log_likelihoods(features, state.means, state.variance)


class GaussianMixture(MixtureMethod):
    """TransCLIP, zero-shot: Gaussians of one diagonal covariance (Zanella et al., NeurIPS 2024, arXiv:2406.01837).

    The mean of a class starts at its most probable images. An image's assignment comes from its zero-shot
    probabilities, its likelihoods and the assignments of near images.

    Args:
        images: number of images that are encoded together.
        neighbours: number of other images that each image has an edge to.
        iterations: number of updates of means and variance.
        inner_iterations: number of updates of the assignments before each of them, and after the last.
        temperature: divisor of log-likelihoods in the assignments.
        exponent: of the zero-shot probabilities in the assignments, the paper's lambda.
        confident: number of most probable images that start the mean of each class.
        scale: logit scale of zero-shot probabilities, used instead of the backbone's.
    """

    def __init__(
        self,
        images: Count = IMAGES,
        neighbours: Count = 3,
        iterations: Count = 10,
        inner_iterations: Count = 5,
        temperature: Annotated[float, Gt(0)] = 50.0,
        exponent: Annotated[float, Ge(0)] = 1.0,
        confident: Count = 8,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(images, neighbours, iterations, inner_iterations, temperature, exponent, 1.0, scale)
        self.confident = confident

    def steps(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Iterator[Mixture]:
        """Yield the mixture at its start, after each update of means and variance, and with its last assignments."""
        prior, graph = self.prior(features, text), self.graph(features)
        state = Mixture(prior, self.start(features, prior.exp()), start_variance(features))
        yield state
        for _ in range(self.iterations):
            logs = self.assign(state, prior, features, graph)
            state = Mixture(logs, *self.update(features, logs.exp()))
            yield state
        yield replace(state, logs=self.assign(state, prior, features, graph))

    def start(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Return the means `[C, D]` of the most probable images of each class, weighted by their probabilities."""
        values, images = probabilities.topk(min(self.confident, len(features)), dim=0)
        return functional.normalize(torch.einsum("kc,kcd->cd", values, features[images]), dim=-1)

    def update(self, features: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return means `[C, D]` and variance `[D]` of features with assignments `[N, C]`."""
        means = functional.normalize(z.T @ features, dim=-1)
        return means, scatter(features, z, means).sum(dim=0) / len(features)


def start_variance(features: Tensor) -> Tensor:
    """Return the variance `[D]` of unit features that point anywhere."""
    return torch.full_like(features[0], 1 / features.shape[-1])


def log_likelihoods(features: Tensor, means: Tensor, variance: Tensor) -> Tensor:
    """Return for each class -1/2 of the sum over dimensions of squared distances over variances, `[N, C]`.

    Args:
        features: `[N, D]`.
        means: of the classes, `[C, D]`.
        variance: of all classes, `[D]`, or of each, `[C, D]`.
    """
    centre = means.mean(dim=0)  # distances stay, and less is lost to rounding
    features, means = features - centre, means - centre
    precision = (1 / variance.clamp(min=NARROWEST)).expand_as(means)
    cross = features @ (precision * means).T
    return cross - (features.square() @ precision.T + (precision * means.square()).sum(dim=-1)) / 2


def scatter(features: Tensor, z: Tensor, means: Tensor) -> Tensor:
    """Return the sums `[C, D]` of squared distances of features `[N, D]` from means `[C, D]`, weighted by `[N, C]`."""
    centre = means.mean(dim=0)
    features, means = features - centre, means - centre
    total = z.sum(dim=0)[:, None]
    return (z.T @ features.square() - 2 * means * (z.T @ features) + total * means.square()).clamp(min=0)
