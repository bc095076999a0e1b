"""A cache of support features that adds to the zero-shot logits."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.searches import first_best, grid, grid_accuracies
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView

LEAST = 0.1
"""The lowest value of both search grids."""


class FeatureCache(Adaptation):
    """Tip-Adapter: support images vote for their classes (Zhang et al., ECCV 2022, arXiv:2207.09519).

    The key of a support image is the mean of the raw features of its views, normalised. The logits of an image with
    unit feature f are the scaled cosines with the class embeddings plus the votes, `alpha exp(-beta (1 - f k'))`
    summed over the keys k of each class.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        alpha: weight of the votes; the search replaces it.
        beta: sharpness of the votes; the search replaces it.
        search: whether alpha and beta are searched on the validation split, after the keys are trained.
        most_alpha: upper end of the grid of alpha, excluded; the grid starts at 0.1.
        alphas: number of values in the grid of alpha.
        most_beta: upper end of the grid of beta, excluded; the grid starts at 0.1.
        betas: number of values in the grid of beta.
        learn_keys: whether the keys are trained (Tip-Adapter-F); trained keys aren't normalised again.
        scale: logit scale of the cosines with the class embeddings, used instead of the backbone's.
    """

    keys: Tensor
    labels: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = 1.17,
        beta: float = 1.0,
        search: bool = True,
        most_alpha: Annotated[float, Gt(LEAST)] = 3.0,
        alphas: Annotated[int, Ge(1)] = 20,
        most_beta: Annotated[float, Gt(LEAST)] = 7.0,
        betas: Annotated[int, Ge(1)] = 200,
        learn_keys: bool = False,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(clip, task)
        self.search = search
        self.declare(fixed_classes=tuple(task.class_names), needs_validation=search, validation_switch="search")
        self.alphas, self.betas = grid(LEAST, most_alpha, alphas), grid(LEAST, most_beta, betas)
        self.scale = scale
        keys = functional.normalize(task.support.image.float().mean(dim=0), dim=-1)
        if learn_keys:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("labels", task.support.labels.clone())
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.register_buffer("beta", torch.tensor(float(beta)))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`: zero-shot logits plus the weighted votes."""
        zero_shot, cosines = self.compare(image, text)
        return zero_shot + self.alpha * self.votes(cosines, self.beta, len(text))

    def compare(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return the zero-shot logits `[B, C]` of images, and the cosines `[B, K]` that their votes depend on."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return self.scale * image @ text.T, image @ self.keys.T

    def votes(self, cosines: Tensor, beta: Tensor | float, classes: int) -> Tensor:
        """Return the votes `[B, C]` for each class: the affinities to its keys, summed.

        Args:
            cosines: products `[B, K]` of B unit features and K keys.
            beta: sharpness of the affinities.
            classes: number of classes, C.
        """
        return self.class_sums((beta * (cosines - 1)).exp(), classes)

    def class_sums(self, values: Tensor, classes: int) -> Tensor:
        """Return the sums `[B, C]` of values `[B, K]` of the keys over the keys of each class."""
        return values.new_zeros(values.shape[0], classes).index_add(1, self.labels, values)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Choose alpha and beta by validation accuracy; ties go to the smallest beta, then the smallest alpha.

        If no image is classified correctly, both are zero, as in the authors' code.
        """
        if self.search:
            found = self.accuracies(learned.validation, learned.text)
            beta, alpha = first_best(found, self.betas, self.alphas)
            self.beta.fill_(beta)
            self.alpha.fill_(alpha)

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Return the accuracy on labelled images for each beta (row) and alpha (column)."""
        image, labels = samples.flat()
        zero_shot, cosines = self.compare(image, text.float())
        return grid_accuracies(
            lambda beta: (zero_shot, self.votes(cosines, beta, len(text))), labels, self.betas, self.alphas
        )
