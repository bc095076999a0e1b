"""Attention without parameters between the patches of an image and the text."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation, Capabilities
from clipadapt.adaptations.searches import first_best, grid, grid_accuracies
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView, format_templates

IMAGES_AT_ONCE = 64
"""Validation images whose attention is computed at once."""


class ParameterFreeAttention(Adaptation):
    """CALIP: image patches and text attend to each other (Guo et al., AAAI 2023, arXiv:2209.14169, section 3.2).

    The logits are the scaled cosines, plus those of two branches with weights of their own. In one, each class's text
    is a mixture of the image's patches, which is compared with the image; in the other, each patch is a mixture of the
    classes' text, and the mean plus the maximum over the patches is compared with the text. Attended features aren't
    normalised. Class names keep their underscores, as in the authors' code, which searches the weights on test labels.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        text_weight: weight of the branch with attended text; the search replaces it.
        image_weight: weight of the branch with the attended image; the search replaces it.
        search: whether both weights are searched on the validation split.
        attention_scale: factor on the cosines of patches and text before each softmax.
        most_text_weight: upper end of the grid of `text_weight`, excluded; the grid starts at 0.
        text_weights: number of values in the grid of `text_weight`.
        most_image_weight: upper end of the grid of `image_weight`, excluded; the grid starts at 0.
        image_weights: number of values in the grid of `image_weight`.
        scale: logit scale of all cosines, used instead of the backbone's.
        zero_shot_weight: weight of the zero-shot logits, the paper's beta_1.
    """

    capabilities = Capabilities(all_tokens=True)
    text_weight: Tensor
    image_weight: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        text_weight: float = 1.12,
        image_weight: float = 0.02,
        search: bool = True,
        attention_scale: Annotated[float, Gt(0)] = 2.0,
        most_text_weight: Annotated[float, Gt(0)] = 2.0,
        text_weights: Annotated[int, Ge(1)] = 200,
        most_image_weight: Annotated[float, Gt(0)] = 0.1,
        image_weights: Annotated[int, Ge(1)] = 200,
        scale: Annotated[float, Gt(0)] = 100.0,
        zero_shot_weight: float = 1.0,
    ) -> None:
        super().__init__(clip, task)
        self.search, self.attention_scale, self.scale = search, attention_scale, scale
        self.zero_shot_weight = zero_shot_weight
        self.grids = grid(0.0, most_text_weight, text_weights), grid(0.0, most_image_weight, image_weights)
        self.register_buffer("text_weight", torch.tensor(float(text_weight)))
        self.register_buffer("image_weight", torch.tensor(float(image_weight)))
        self.declare(needs_validation=search, validation_switch="search", num_fitted_values=2 * search)

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the prompts of each class: the task's templates with the class name as it is."""
        return [[*prompts] for prompts in format_templates(self.templates, names)]

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of features of all tokens `[B, 1 + P, D]` and class embeddings `[C, D]`."""
        zero_shot, by_text, by_image = self.branches(image, text)
        return self.zero_shot_weight * zero_shot + self.text_weight * by_text + self.image_weight * by_image

    def branches(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits `[B, C]` by zero-shot CLIP, with attended text, and with the attended image."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        pooled, patches = image[:, 0], image[:, 1:]
        attention = self.attention_scale * patches @ text.T
        attended_text = attention.softmax(dim=1).mT @ patches
        mixtures = attention.softmax(dim=2) @ text
        attended_image = mixtures.mean(dim=1) + mixtures.amax(dim=1)
        by_text = (attended_text @ pooled.unsqueeze(-1)).squeeze(-1)
        return self.scale * pooled @ text.T, self.scale * by_text, self.scale * attended_image @ text.T

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Choose both weights by validation accuracy; ties go to the smallest weight of the text, then of the image.

        If no image is classified correctly, both are zero.
        """
        if self.search:
            found = self.accuracies(learned.validation, learned.text)
            text_weight, image_weight = first_best(found, *self.grids)
            self.text_weight.fill_(text_weight)
            self.image_weight.fill_(image_weight)

    def accuracies(self, samples: LabelledFeatures, text: Tensor) -> Tensor:
        """Return the accuracy on labelled images for each weight of the text (row) and of the image (column)."""
        image, labels = samples.flat()
        parts = [self.branches(part, text.float()) for part in image.split(IMAGES_AT_ONCE)]
        zero_shot, by_text, by_image = (torch.cat(own) for own in zip(*parts, strict=True))
        own = self.zero_shot_weight * zero_shot
        return grid_accuracies(lambda weight: (own + weight * by_text, by_image), labels, *self.grids)
