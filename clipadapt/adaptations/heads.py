"""Class embeddings and linear heads that start at the text."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.features import bottleneck, mix
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.interfaces import SupportView, format_templates


class RawText(Adaptation):
    """Class embeddings near the text features as they leave the tower: class names as written, no normalisation."""

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.declare(fixed_classes=tuple(task.class_names))

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """The task's templates with each name, underscores and all."""
        return [[*prompts] for prompts in format_templates(self.templates, names)]

    def class_embeddings(self, text: Tensor) -> Tensor:
        """The mean over templates `[..., C, D]`."""
        return text.float().mean(dim=-2)


class TaskResidual(RawText):
    """TaskRes: a learned residual on the text features (Yu et al., CVPR 2023, arXiv:2211.10277).

    Class embeddings are `t + scale * x` of raw text features t and a residual x `[C, D]` that starts at zero.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        scale: of the residual, the paper's alpha.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, scale: float = 0.5) -> None:
        super().__init__(clip, task)
        self.scale = scale
        self.residual = nn.Parameter(torch.zeros(len(task.class_names), clip.width or 0))

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Text features and the residual."""
        return super().class_embeddings(text) + self.scale * self.residual


class LearnedClassWeights(RawText):
    """ZS-LP, CLAP: class embeddings that start at the text's (Silva-Rodriguez et al., CVPR 2024, arXiv:2312.12730).

    They are learned raw, `[C, D]`, and normalised where they meet an image.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.prototypes = nn.Parameter(super().class_embeddings(clip.text_features(self.prompts(task.class_names))))

    def class_embeddings(self, text: Tensor) -> Tensor:
        """The prototypes."""
        return self.prototypes


class LinearHead(Adaptation):
    """Cross-modal adaptation's linear head on unit features (Lin et al., CVPR 2023, arXiv:2301.06267).

    It has no bias, and its rows `[C, D]` aren't normalised, so they may grow.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        start: the rows at first: those of zero-shot, or random.
        logit_scale: logarithm of the factor on the logits.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        start: Literal["zero_shot", "random"] = "zero_shot",
        logit_scale: float = 4.60517,
    ) -> None:
        super().__init__(clip, task)
        self.declare(fixed_classes=tuple(task.class_names))
        self.factor = math.exp(logit_scale)
        self.zero_shot = self.class_embeddings(clip.text_features(self.prompts(task.class_names)))
        random = nn.Linear(clip.width or 0, len(task.class_names), bias=False).weight
        self.weight = nn.Parameter(self.zero_shot.clone() if start == "zero_shot" else random.detach())

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Rows of zero-shot `[..., C, D]`: the mean of raw text features, normalised."""
        return functional.normalize(text.float().mean(dim=-2), dim=-1)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Of image features, or of any others of the joint space, `[B, D]`; the head's own factor."""
        return self.factor * self.features(functional.normalize(image, dim=-1)) @ self.weight.T

    def features(self, unit: Tensor) -> Tensor:
        """What the head sees of unit features."""
        return unit

    @torch.no_grad()
    def interpolate(self, ratio: float) -> None:
        """Move the rows, and nothing else, towards those of zero-shot, wherever they started (the paper's WiSE-FT)."""
        self.weight.copy_(torch.lerp(self.zero_shot, self.weight, ratio))


class AdaptedHead(LinearHead):
    """Cross-modal adaptation's adapter before its linear head (Lin et al., CVPR 2023, arXiv:2301.06267).

    CLIP-Adapter's bottleneck, on the unit feature; the mix isn't normalised again.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        start: the head's rows at first: those of zero-shot, or random.
        logit_scale: logarithm of the factor on the logits.
        ratio: weight of the adapted feature.
        reduction: the adapter's hidden layer has D // reduction channels.

    Raises:
        UserError: the reduction leaves no hidden channel.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        start: Literal["zero_shot", "random"] = "zero_shot",
        logit_scale: float = 4.60517,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 0.2,
        reduction: Annotated[int, Ge(1)] = 4,
    ) -> None:
        super().__init__(clip, task, start, logit_scale)
        self.ratio = ratio
        self.down, self.up = bottleneck(clip.width or 0, reduction)

    def features(self, unit: Tensor) -> Tensor:
        """The adapter's mix."""
        return mix(self.down, self.up, unit, self.ratio)
