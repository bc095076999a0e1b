"""Classes as Gaussians over all test images and labelled ones."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Protocol, runtime_checkable

import torch
from annotated_types import Ge, Gt, MinLen
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError
from clipadapt.graphs import NearestImages
from clipadapt.test_time.mixture import Mixture, MixtureMethod, scatter, start_variance
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import IMAGES, LabelledGraph

GAMMAS = [0.002, 0.01, 0.02, 0.2]
SUPPORT_FACTOR = 50
"""Times gamma, the weight of all support images together beside that of all test images, as in the authors' code."""


@runtime_checkable
class KeepsImages(Protocol):
    """What an adaptation has that keeps labelled images.

    Attributes:
        support: unit features of the support set, `[S, D]`.
        support_labels: their classes, `[S]`.
        validation: unit features of validation images, `[M, D]`.
        validation_labels: their classes, `[M]`; -1 for none.
    """

    support: Tensor
    support_labels: Tensor
    validation: Tensor
    validation_labels: Tensor


class LabelledMixture(MixtureMethod):
    """TransCLIP, few-shot: Gaussians over test and support images (Zanella et al., NeurIPS 2024, arXiv:2406.01837).

    A support image's assignment is its label. The weight of the support set is chosen by validation images, each of
    which gets the answer to its nearest test image. The weights are tried one after another, and each goes on from
    where the one before ended.

    Args:
        images: number of images that are encoded together.
        neighbours: number of test images that each test and support image has an edge to, without its nearest.
        iterations: number of updates of means and variance for each weight.
        inner_iterations: number of updates of the assignments before each of them, and after the last.
        temperature: divisor of log-likelihoods in the assignments.
        exponent: of the zero-shot probabilities in the assignments, the paper's lambda.
        gammas: weights of the support set, in the order in which they are tried.
        own_rows: whether an image gets its own row of the graph; in the authors' code the rows of support and test
            images are in different orders, so that it gets another one's.
        scale: logit scale of zero-shot probabilities, used instead of the backbone's.
    """

    def __init__(
        self,
        images: Count = IMAGES,
        neighbours: Count = 3,
        iterations: Count = 10,
        inner_iterations: Count = 5,
        temperature: Annotated[float, Gt(0)] = 50.0,
        exponent: Annotated[float, Ge(0)] = 0.5,
        gammas: Annotated[list[Annotated[float, Ge(0)]], MinLen(1)] = GAMMAS,
        own_rows: bool = False,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(images, neighbours, iterations, inner_iterations, temperature, exponent, 1.0, scale)
        self.gammas, self.own_rows = gammas, own_rows

    def check(self, adaptation: Adaptation) -> None:
        """Check that an adaptation keeps labelled images, and validation images if there are several weights.

        Raises:
            UserError: it doesn't, or as of `WholeSetMethod.check`.
        """
        super().check(adaptation)
        if len(self.gammas) > 1 and not len(labelled_images(adaptation).validation):
            raise UserError(
                f"there are no validation images to choose one of gammas={self.gammas} by: give one, such as "
                "method.test_time.gammas=[0.01]"
            )

    def compute_logits(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Tensor:
        """Compute the logarithms `[N, C]` of the assignments with the best weight."""
        return self.best(features, text, adaptation)[1]

    def best(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> tuple[float, Tensor]:
        """Return the weight with the best validation accuracy, the first of equals, and its log-assignments."""
        best, found = -1.0, (0.0, features)
        for gamma, state in zip(self.gammas, self.ends(features, text, adaptation), strict=True):
            if (accuracy := self.accuracy(features, state, adaptation)) > best:
                best, found = accuracy, (gamma, state.logs)
        return found

    def ends(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Iterator[Mixture]:
        """Yield the mixture at the end of each weight; arguments as of `compute_logits`."""
        for number, state in enumerate(self.steps(features, text, adaptation)):
            if number and number % (self.iterations + 1) == 0:
                yield state

    def accuracy(self, features: Tensor, state: Mixture, adaptation: Adaptation) -> float:
        """Return the accuracy of validation images' nearest test images; 0 without any."""
        kept = labelled_images(adaptation)
        known = kept.validation_labels >= 0
        if not known.any():
            return 0.0
        near = self.nearest(kept.validation[known], features)
        return float((state.logs[near].argmax(dim=-1) == kept.validation_labels[known]).float().mean())

    def nearest(self, images: Tensor, features: Tensor) -> Tensor:
        """Return the index `[M]` of the test image that is nearest to each of M images."""
        return NearestImages.find(images, features, 1).images[:, 0]

    def steps(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Iterator[Mixture]:
        """Yield the mixture at its start, then for each weight after each update and with its last assignments."""
        kept, prior = labelled_images(adaptation), self.prior(features, text)
        support, labels = kept.support, functional.one_hot(kept.support_labels, len(text)).float()
        graph = self.labelled_graph(features, support, labels)
        state = Mixture(prior, functional.normalize(labels.T @ support, dim=-1), start_variance(features))
        yield state
        for gamma in self.gammas:
            for _ in range(self.iterations):
                logs = self.assign(state, prior, features, graph)
                state = Mixture(logs, *self.update(features, logs.exp(), support, labels, gamma))
                yield state
            state = replace(state, logs=self.assign(state, prior, features, graph))
            yield state

    def labelled_graph(self, features: Tensor, support: Tensor, labels: Tensor) -> LabelledGraph:
        """Return the edges of support and test images to near test images, with one-hot labels `[S, C]`."""
        edges = NearestImages.find(torch.cat([support, features]), features, self.neighbours, skip=1)
        return LabelledGraph(edges, labels, self.own_rows)

    def update(
        self, features: Tensor, z: Tensor, support: Tensor, labels: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor]:
        """Return means `[C, D]` and variance `[D]`: test images have weight 1 together, support images a multiple."""
        z, own = z / len(features), gamma * SUPPORT_FACTOR / len(support) * labels
        means = functional.normalize(z.T @ features + own.T @ support, dim=-1)
        spread = scatter(features, z, means) + scatter(support, own, means)
        return means, spread.sum(dim=0) / (z.sum() + own.sum())


def labelled_images(adaptation: Adaptation) -> KeepsImages:
    """Return the part of an adaptation that keeps labelled images.

    Raises:
        UserError: there is none.
    """
    for part in adaptation.modules():
        if isinstance(part, KeepsImages):
            return part
    raise UserError(
        "this method needs the features of labelled images, which this adaptation doesn't keep: add "
        "adaptation@method.adaptation=labelled_images"
    )
