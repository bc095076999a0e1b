"""What those who learn a task may know of it: class names, templates, features of labelled images; no test image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled images as features.

    Attributes:
        image: features of V views of N images, `[V, N, D]`, as they leave the image tower: not normalised.
        labels: class indices, `[N]`.
    """

    image: Tensor
    labels: Tensor

    def flat(self) -> tuple[Tensor, Tensor]:
        """Every view as a sample of its own: features `[V * N, D]` in float32, and labels `[V * N]`."""
        return self.image.float().flatten(0, 1), self.labels.repeat(len(self.image))


class SupportView(Protocol):
    """What an adaptation or an objective may know of a task; features are computed when they are first asked for."""

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes."""

    @property
    def templates(self) -> list[str]:
        """Sentences with `{}` for the class name."""

    @property
    def support(self) -> LabelledFeatures:
        """The support set through the frozen image tower.

        Zeros where what was learned is loaded again: what a constructor makes of them is then overwritten.
        """


class AdaptedFeatures(Protocol):
    """What a method without gradients may use: features through the adapted towers, computed when asked for."""

    @property
    def support(self) -> LabelledFeatures:
        """The support set."""

    @property
    def validation(self) -> LabelledFeatures:
        """The validation split, one view of each image; using it makes validation the selection policy."""

    @property
    def text(self) -> Tensor:
        """Class embeddings, `[C, D]`."""

    @property
    def scale(self) -> float:
        """The factor on cosine similarities."""


def underscores_to_spaces(name: str) -> str:
    """A class name as words: underscores become spaces."""
    return name.replace("_", " ")


def format_templates(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """The templates of each class, with its name as it is."""
    return [[template.replace("{}", name) for template in templates] for name in names]


def class_prompts(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """The templates of each class, with its name as words."""
    return format_templates(templates, [underscores_to_spaces(name) for name in names])
