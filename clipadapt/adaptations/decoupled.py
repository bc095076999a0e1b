"""A second head for the classes that were learned, beside the cosines that serve any classes."""

from typing import Annotated

import torch
from annotated_types import Gt, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation, Head
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView


class DecoupledHead(Adaptation):
    """DePT: a linear classifier beside the similarity head (Zhang et al., CVPR 2024, arXiv:2309.07439).

    The classifier, with bias, sees raw features, each channel scaled and shifted: `linear(scale * f + shift)`. Image
    and text features have a scale and a shift each; the text's count in training alone. Logits of the learned classes
    are the weighted mean of both heads' logits; other classes have those of the similarity head.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        weight: weight of the classifier's logits; the similarity head has the rest.
        rate_factor: factor on the learning rate of the classifier, the scales and the shifts.
    """

    averages_raw_text = True

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        weight: Annotated[float, Interval(ge=0, le=1)] = 0.7,
        rate_factor: Annotated[float, Gt(0)] = 6.5,
    ) -> None:
        super().__init__(clip, task)
        self.declare(fixed_classes=tuple(task.class_names), serves_unseen=True)
        self.weight, self.rate_factor = weight, rate_factor
        width = clip.width or 0
        self.image_scale, self.image_shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.text_scale, self.text_shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        classifier = nn.Linear(width, len(task.class_names))
        self.classifier_weight, self.classifier_bias = classifier.weight, classifier.bias

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the mean of raw text features over the templates, `[..., C, D]`; `logits` normalises it."""
        return text.float().mean(dim=-2)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return the weighted mean `[B, C]` of the logits of both heads, for the classes that were learned."""
        return torch.stack([weight * logits for weight, logits in self.heads(image, text, scale)]).sum(dim=0)

    def heads(self, image: Tensor, text: Tensor, scale: float) -> list[Head]:
        """Return the similarity head, and the classifier."""
        return [(1 - self.weight, super().logits(image, text, scale)), (self.weight, self.classify(image))]

    def text_logits(self, text: Tensor) -> Tensor:
        """Return the classifier's logits `[..., C, C]` of raw class embeddings, with the text's scale and shift."""
        return functional.linear(self.text_scale * text + self.text_shift, self.classifier_weight, self.classifier_bias)

    def logits_of_unseen(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return the similarity head's logits `[B, C]`, for classes some of which were not learned."""
        return super().logits(image, text, scale)

    def classify(self, image: Tensor) -> Tensor:
        """Return the classifier's logits `[B, C]` of raw image features `[B, D]`."""
        seen = self.image_scale * image + self.image_shift
        return functional.linear(seen, self.classifier_weight, self.classifier_bias)
