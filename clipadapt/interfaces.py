"""Interfaces to a task that adaptations and objectives may rely on; no test images are accessible through them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Protocol

import torch
from annotated_types import MinLen, Predicate, doc
from torch import Tensor

Template = Annotated[str, Predicate(lambda text: "{}" in text), doc("with {} for the class name")]
"""A sentence that names a class."""
Templates = Annotated[list[Template], MinLen(1)]
"""Sentences that name a class, at least one."""


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
    def words(self) -> Mapping[str, Sequence[str]]:
        """Names for CLIP of each class that has others than its own."""

    @property
    def templates(self) -> list[str]:
        """Sentences with `{}` for the class name."""

    @property
    def support_shape(self) -> tuple[int, int, int]:
        """Shape of the support set's features, which are not computed for it: views V, images N and width D."""

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


Prompter = Callable[[Sequence[str], Sequence[str]], list[list[str]]]


def names_by_class(class_names: Sequence[str], words: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names for CLIP of each class: those in `words`, or else its own."""
    return [[*words.get(name, [name])] for name in class_names]


def prompts_by_name(
    templates: Sequence[str], task: SupportView, fill: Prompter = class_prompts
) -> tuple[list[list[str]], list[int]]:
    """Return the prompts of every name of a task's classes, class by class, and how many names each class has."""
    names = names_by_class(task.class_names, task.words)
    return fill(templates, [*chain.from_iterable(names)]), [len(some) for some in names]


def mean_over_names(text: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the mean over the prompts of all names of each class, `[..., C, 1, D]`.

    Where each class has one name, `text` is returned as it is.

    Args:
        text: text features `[..., N, templates, D]` of N names, class by class.
        counts: how many names each of the C classes has.
    """
    if max(counts) == 1:
        return text
    classes = [some.flatten(-3, -2).mean(dim=-2, keepdim=True) for some in text.split([*counts], dim=-3)]
    return torch.stack(classes, dim=-3)
