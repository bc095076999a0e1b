"""Interfaces to a task that adaptations and objectives may rely on; no test images are accessible through them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class LabelledFeatures:
    """Features and labels of images.

    Attributes:
        image: raw image features of V views of N images, `[V, N, D]`, not normalised.
        labels: class indices, `[N]`.
        weights: weight of each image in a fit, `[N]`; None if all count the same.
    """

    image: Tensor
    labels: Tensor
    weights: Tensor | None = None

    def flat(self) -> tuple[Tensor, Tensor]:
        """Return every view as a separate sample: features `[V * N, D]` in float32, and labels `[V * N]`."""
        return self.image.float().flatten(0, 1), self.labels.repeat(len(self.image))

    def flat_weights(self) -> Tensor | None:
        """Return the weights `[V * N]` of the samples of `flat`; None if all count the same."""
        return None if self.weights is None else self.weights.repeat(len(self.image))


class SupportView(Protocol):
    """The parts of a task that adaptations and objectives may use; features are computed on first use."""

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes."""

    @property
    def templates(self) -> list[str]:
        """Sentences with `{}` for the class name."""

    @property
    def support(self) -> LabelledFeatures:
        """Features of the support set from the frozen image tower.

        Features are zeros when saved tensors are loaded, since loading overwrites all values computed from them.
        """


class AdaptedFeatures(Protocol):
    """Features of the adapted towers for `Adaptation.fit_closed_form`, computed on first use."""

    @property
    def support(self) -> LabelledFeatures:
        """Features of the support set."""

    @property
    def validation(self) -> LabelledFeatures:
        """Features of the validation split, one view of each image.

        If a method uses them, the run's selection policy is validation.
        """

    @property
    def text(self) -> Tensor:
        """Class embeddings, `[C, D]`."""

    @property
    def scale(self) -> float:
        """The backbone's logit scale."""


def underscores_to_spaces(name: str) -> str:
    """Return a class name with underscores replaced by spaces."""
    return name.replace("_", " ")


def format_templates(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Return the prompts of each class: the templates with the class name as written."""
    return [[template.replace("{}", name) for template in templates] for name in names]


def class_prompts(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """Return the prompts of each class: the templates with the class name, underscores as spaces."""
    return format_templates(templates, [underscores_to_spaces(name) for name in names])
