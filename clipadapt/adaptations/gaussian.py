"""A Gaussian classifier in closed form beside the zero-shot logits."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, MinLen
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.searches import first_best, grid_accuracies
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView

ALPHAS = [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0]


class GaussianClassifier(Adaptation):
    """GDA-CLIP: Gaussian discriminant analysis beside zero-shot CLIP (Wang et al., ICLR 2024, arXiv:2402.04087).

    The classes are Gaussians with their own means and one covariance, estimated from unit image features of the support
    set, in which every view is a separate sample. The logits of an image with unit feature f are the scaled cosines
    with the class embeddings plus `alpha (f w_k + b_k)`, with weights W `[C, D]` and biases b of the Gaussians.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        alpha: weight of the Gaussian classifier; the search replaces it, unless no image is classified correctly.
        search: whether alpha is searched on the validation split.
        alphas: values of alpha to search.
        scale: logit scale of the cosines with the class embeddings, used instead of the backbone's.
    """

    weight: Tensor
    bias: Tensor
    alpha: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        alpha: float = 0.1,
        search: bool = True,
        alphas: Annotated[list[float], MinLen(1)] = ALPHAS,
        scale: Annotated[float, Gt(0)] = 100.0,
    ) -> None:
        super().__init__(clip, task)
        self.names, self.search, self.scale = list(task.class_names), search, scale
        self.otherwise, self.alphas = alpha, sorted(alphas)  # equal accuracies: the smallest alpha
        self.register_buffer("weight", torch.zeros(len(self.names), clip.width or 0))
        self.register_buffer("bias", torch.zeros(len(self.names)))
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        fitted = self.weight.numel() + self.bias.numel() + search
        self.declare(fixed_classes=tuple(self.names), num_fitted_values=fitted)
        self.declare(needs_validation=search, validation_switch="search")

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]`: zero-shot logits plus the weighted ones of the Gaussian classifier."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return self.scale * image @ text.T + self.alpha * self.gaussian(image)

    def gaussian(self, image: Tensor) -> Tensor:
        """Return logits `[B, C]` of the Gaussian classifier, for unit image features `[B, D]`."""
        return functional.linear(image, self.weight, self.bias)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Fit the Gaussians to the support set, and choose alpha by validation accuracy; ties go to the smallest.

        Raises:
            UserError: a class has no image, or no samples of a class differ.
        """
        means, precision = self.estimate(learned.support)
        self.weight.copy_(means @ precision)
        self.bias.copy_(-math.log(len(means)) - (self.weight * means).sum(dim=-1) / 2)
        if self.search:
            found = self.accuracies(learned.validation, learned.text)
            self.alpha.fill_(*first_best(found, self.alphas, otherwise=self.otherwise))

    def estimate(self, support: LabelledFeatures) -> tuple[Tensor, Tensor]:
        """Estimate the Gaussians from labelled images.

        Returns:
            The mean `[C, D]` of each class's unit features, not normalised again, and the inverse covariance `[D, D]`.

        Raises:
            UserError: a class has no image, or no samples of a class differ.
        """
        image, labels = support.flat()
        image, counts = functional.normalize(image, dim=-1), labels.bincount(minlength=len(self.names))
        if empty := (counts == 0).nonzero().flatten().tolist():
            raise UserError(
                f"this method estimates a mean of every class, and the support set has no image of "
                f"{self.names[empty[0]]}: add some, or leave the class out"
            )
        means = image.new_zeros(len(counts), image.shape[-1]).index_add(0, labels, image) / counts[:, None]
        return means, inverse_covariance(image - means[labels])

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Return the accuracy on labelled images for each alpha."""
        image, labels = samples.flat()
        image, text = functional.normalize(image, dim=-1), functional.normalize(text.float(), dim=-1)
        terms = self.scale * image @ text.T, self.gaussian(image)
        return grid_accuracies(lambda: terms, labels, self.alphas)


def inverse_covariance(centred: Tensor) -> Tensor:
    """Estimate the inverse covariance `[D, D]` of samples `[N, D]` around their class's mean.

    The estimate is a ridge that also serves fewer samples than dimensions (Kubokawa & Srivastava, 2008): with the
    covariance S, over N - 1, it is the inverse of (N - 1) S + trace(S) I, times D.

    Raises:
        UserError: the samples don't vary.
    """
    scatter, width = centred.T @ centred, centred.shape[-1]
    trace = scatter.trace() / max(1, len(centred) - 1)
    if trace < torch.finfo(centred.dtype).eps:
        raise UserError(
            "this method estimates how much the images of a class vary, and each class has one sample, or equal ones: "
            "take more shots, or several views of each image, such as task.views=10"
        )
    return width * torch.linalg.inv(scatter + trace * torch.eye(width, device=centred.device))
