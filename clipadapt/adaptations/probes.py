"""Linear probes fitted on cached features."""

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.searches import accuracy
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import AdaptedFeatures, SupportView


class LinearProbe(Adaptation):
    """CLIP's linear probe: logistic regression on raw image features (Radford et al., ICML 2021, arXiv:2103.00020).

    scikit-learn fits the probe with L-BFGS. Every view of a support image is a separate sample; if images have weights,
    the loss of a sample is multiplied by its image's.

    Args:
        clip: the frozen backbone.
        task: class names.
        C: inverse strength of the L2 penalty on the weights; the losses of the samples are summed, not averaged.
        max_iterations: maximum number of L-BFGS iterations.
        tolerance: L-BFGS stops when the largest component of the gradient is below this value.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        C: Annotated[float, Gt(0)] = 0.316,
        max_iterations: Annotated[int, Ge(1)] = 1000,
        tolerance: Annotated[float, Gt(0)] = 0.0001,
    ) -> None:
        super().__init__(clip, task)
        self.names = list(task.class_names)
        self.C, self.max_iterations, self.tolerance = C, max_iterations, tolerance
        self.register_buffer("weight", torch.zeros(len(self.names), clip.width or 0))
        self.register_buffer("bias", torch.zeros(len(self.names)))
        fitted = self.weight.numel() + self.bias.numel()
        self.declare(fixed_classes=tuple(self.names), num_fitted_values=fitted, weighs_images=True)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of raw image features `[B, D]`; `text` and `scale` are ignored."""
        return functional.linear(image, self.weight, self.bias)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Fit weights and biases to the support set.

        Raises:
            UserError: a class has no support image.
        """
        support = learned.support
        weight, bias = self.regression(*support.flat(), self.tolerance, support.flat_weights())
        self.weight.copy_(weight)
        self.bias.copy_(bias)

    def regression(
        self, image: Tensor, labels: Tensor, tolerance: float, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fit a logistic regression to features `[N, D]`, labels `[N]` and perhaps weights `[N]` of the samples.

        For two classes, scikit-learn returns one row for their difference; each class gets half of that row.

        Returns:
            Weights `[C, D]` and biases `[C]`, with the data type of the features.

        Raises:
            UserError: a class has no image.
        """
        from sklearn.linear_model import LogisticRegression  # takes a second to import

        absent = [name for label, name in enumerate(self.names) if not (labels == label).any()]
        if absent:
            raise UserError(f"a linear probe needs images of every class, and the support set has no {absent[0]}")
        found = LogisticRegression(C=self.C, max_iter=self.max_iterations, tol=tolerance)
        found.fit(image.cpu().numpy(), labels.cpu().numpy(), None if weights is None else weights.cpu().numpy())
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(self.names) == 2:
            return torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return weight, bias


class TextBlendedProbe(Adaptation):
    """LP++: a linear probe whose class embeddings blend in the text (Huang et al., CVPR 2024, arXiv:2404.02285).

    The logit of class k is `f w_k + b_k + alpha_k f t_k` for unit image features f and unit text features t, with
    weights W `[C, D]`, biases b and one alpha per class, and without logit scale. Initial weights, initial alpha and
    step sizes are computed from the support set, in which every view is a separate sample. The optimisation is that of
    the authors' code: full-batch gradient descent, with heavy-ball momentum for weights and biases; every
    `alpha_period` epochs, alpha takes a step along the sum of all its gradients so far.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        epochs: number of steps for weights and biases.
        momentum: momentum of these steps.
        alpha_factor: the initial alpha is this factor times the mean cosine of support images and their class's text.
        alpha_period: number of epochs between steps of alpha.
        select: whether to select the epoch with the best validation accuracy, the last one of ties; if not, the last
            epoch is used.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        epochs: Annotated[int, Ge(1)] = 300,
        momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9,
        alpha_factor: float = 250.0,
        alpha_period: Annotated[int, Ge(1)] = 10,
        select: bool = True,
    ) -> None:
        super().__init__(clip, task)
        self.select = select
        self.declare(fixed_classes=tuple(task.class_names), needs_validation=select, validation_switch="select")
        self.epochs, self.momentum, self.alpha_period = epochs, momentum, alpha_period
        image, labels = task.support.flat()
        text = self.class_embeddings(self.frozen_text(clip, task.class_names).float())
        weight, cosine = class_sums(functional.normalize(image, dim=-1), labels, text)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.empty(len(text)).uniform_(-1, 1) / math.sqrt(text.shape[-1]))
        self.alpha = nn.Parameter((alpha_factor * cosine.mean()).repeat(len(text)))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of image features `[B, D]` and class embeddings `[C, D]`; `scale` is ignored."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        return functional.linear(image, self.weight, self.bias) + self.alpha * (image @ text.T)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Optimise on the support set; with `select`, restore the epoch with the best validation accuracy."""
        best, kept = -1.0, {}
        for _ in self.steps(*learned.support.flat(), learned.text):
            if self.select and (found := self._accuracy(learned)) >= best:
                best, kept = found, {name: value.clone() for name, value in self.state_dict().items()}
        if kept:
            self.load_state_dict(kept)

    def steps(self, image: Tensor, labels: Tensor, text: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Run the optimisation, one epoch at a time.

        Args:
            image: features `[N, D]`.
            labels: class indices `[N]`.
            text: class embeddings `[C, D]`.

        Yields:
            For each epoch, the loss before its step and alpha `[C]` after it.
        """
        rate, alpha_rate = self.rates(image, text)
        optimizer = torch.optim.SGD([self.weight, self.bias], lr=rate, momentum=self.momentum)
        self.zero_grad()
        for epoch in range(1, self.epochs + 1):
            with torch.enable_grad():
                loss = functional.cross_entropy(self.logits(image, text.float(), 1.0), labels)
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()  # skips alpha, whose gradients accumulate over epochs
            if epoch % self.alpha_period == 0 and self.alpha.grad is not None:
                self.alpha.data -= alpha_rate * self.alpha.grad
            yield loss.detach(), self.alpha.detach().clone()
        self.zero_grad()

    def rates(self, image: Tensor, text: Tensor) -> tuple[float, float]:
        """Compute the step sizes, inverse Lipschitz constants, from image features `[N, D]`.

        Returns:
            The step size of weights and biases, and that of alpha.
        """
        image, text = functional.normalize(image, dim=-1), functional.normalize(text.float(), dim=-1)
        largest = torch.linalg.matrix_norm(image, 2) ** 2
        steepest = ((image @ text.T) ** 2).sum(dim=0).max()
        return float(4 * len(image) / largest), float(len(image) / (4 * steepest))

    def _accuracy(self, learned: AdaptedFeatures) -> float:
        image, labels = learned.validation.flat()
        return float(accuracy(self.logits(image, learned.text.float(), 1.0), labels))


def class_sums(image: Tensor, labels: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Compute sums and mean cosines of the images of each class.

    Args:
        image: unit image features `[N, D]`.
        labels: class indices `[N]`.
        text: class embeddings `[C, D]`.

    Returns:
        For each class, the sum `[C, D]` of its image features, and the mean `[C]` of their cosines with its text.
    """
    labels = labels.to(image.device)
    sums = torch.zeros_like(text).index_add(0, labels, image)
    counts = labels.bincount(minlength=len(text)).clamp(min=1)
    return sums, (sums * text).sum(dim=-1) / counts
