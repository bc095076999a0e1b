"""Classes as Gaussians over all test images that are held near their text."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.test_time.mixture import Mixture, MixtureMethod, scatter
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import IMAGES


class AnchoredMixture(MixtureMethod):
    """StatA: Gaussians anchored to the text, where few classes may have images (Zanella et al., CVPR 2025).

    Each class has a diagonal covariance of its own. Mean and covariance are weighted means of those of its images and
    of the anchor: the text and the covariance around it. The fewer images a class has, the more the anchor counts, and
    a class without any stays at it (arXiv:2501.03729).

    Args:
        images: number of images that are encoded together.
        neighbours: number of other images that each image has an edge to.
        iterations: number of updates of the Gaussians.
        inner_iterations: number of updates of the assignments before each of them, and after the last.
        temperature: divisor of log-likelihoods in the assignments.
        exponent: of the zero-shot probabilities in the assignments.
        graph_weight: weight of the graph in the assignments.
        alpha: weight of the anchor, in images.
        soft_counts: whether a class's images are counted by their assignments, not by their most probable classes.
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
        graph_weight: Annotated[float, Ge(0)] = 1.0,
        alpha: Annotated[float, Gt(0)] = 1.0,
        soft_counts: bool = False,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(images, neighbours, iterations, inner_iterations, temperature, exponent, graph_weight, scale)
        self.alpha, self.soft_counts = alpha, soft_counts

    def steps(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Iterator[Mixture]:
        """Yield the mixture at its start, after each update of the Gaussians, and with its last assignments."""
        prior, graph = self.prior(features, text), self.graph(features)
        anchor = Mixture(prior, text, scatter(features, prior.exp(), text).sum(dim=0) / len(features))
        state = anchor
        yield state
        for _ in range(self.iterations):
            state = self.update(features, self.assign(state, prior, features, graph), anchor)
            yield state
        yield replace(state, logs=self.assign(state, prior, features, graph))

    def likelihoods(self, features: Tensor, state: Mixture) -> Tensor:
        """Return the log-likelihoods `[N, C]` of features `[N, D]`, up to a constant."""
        return super().likelihoods(features, state) - state.variance.log().sum(dim=-1) / 2

    def update(self, features: Tensor, logs: Tensor, anchor: Mixture) -> Mixture:
        """Return the mixture of features `[N, D]` with log-assignments `[N, C]`."""
        z = logs.exp()
        total, text = z.sum(dim=0).clamp(min=torch.finfo(z.dtype).tiny)[:, None], anchor.means
        counts = z.sum(dim=0) if self.soft_counts else logs.argmax(dim=-1).bincount(minlength=len(text)).to(z.dtype)
        weight = counts / (self.alpha + counts)
        beta = weight[:, None]
        means = beta * functional.normalize(z.T @ features, dim=-1) + (1 - beta) * text
        means = functional.normalize(means, dim=-1)
        around_text = anchor.variance + (text - means).square()
        variance = beta * scatter(features, z, means) / total + (1 - beta) * around_text
        return Mixture(logs, means, variance, weight)
