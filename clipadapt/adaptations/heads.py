"""Class embeddings and linear heads that are initialised with text features."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation, Capabilities
from clipadapt.adaptations.features import bottleneck, mix
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt
from clipadapt.interfaces import AdaptedFeatures, SupportView, format_templates


class RawText(Adaptation):
    """A base class for class embeddings of raw text features: class names as written, no normalisation."""

    averages_raw_text = True

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.declare(fixed_classes=tuple(task.class_names))

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return the prompts of each class: the task's templates with the class name, underscores kept."""
        return [[*prompts] for prompts in format_templates(self.templates, names)]

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the mean of raw text features over the templates, `[..., C, D]`."""
        return text.float().mean(dim=-2)


class TaskResidual(RawText):
    """TaskRes: a learned residual on the text features (Yu et al., CVPR 2023, arXiv:2211.10277).

    Class embeddings are `t + scale * x` of raw text features t and a residual x `[C, D]` that starts at zero.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        scale: weight of the residual, the paper's alpha.
    """

    def __init__(self, clip: DualEncoder, task: SupportView, scale: float = 0.5) -> None:
        super().__init__(clip, task)
        self.scale = scale
        self.residual = nn.Parameter(torch.zeros(len(task.class_names), clip.width or 0))

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return raw text features plus the scaled residual, `[C, D]`."""
        return super().class_embeddings(text) + self.scale * self.residual


class LearnedClassWeights(RawText):
    """ZS-LP, CLAP: learned class weights, from text features (Silva-Rodriguez et al., CVPR 2024, arXiv:2312.12730).

    The learned weights `[C, D]` are raw; `logits` normalises them.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.prototypes = nn.Parameter(super().class_embeddings(self.frozen_text(clip, task.class_names)))

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the learned class weights, `[C, D]`."""
        return self.prototypes


class LateClassWeights(Adaptation):
    """2SFS: class weights that a second phase of the fit trains (Farina et al., CVPR 2025, arXiv:2503.11609).

    They start at the class embeddings that the first phase, which trains another adaptation, ends with. Classes that
    weren't learned keep the embeddings of their text.

    Args:
        clip: the frozen backbone.
        task: class names and templates.

    Attributes:
        weight: the class weights `[C, D]`, which needn't stay of unit length; `logits` normalises them.
        used: whether the weights take the place of the text, that is, whether the second phase has begun.
    """

    capabilities = Capabilities(phases=2)
    used: Tensor

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        self.rows = {name: row for row, name in reversed([*enumerate(task.class_names)])}
        self.weight = nn.Parameter(torch.zeros(len(task.class_names), clip.width or 0))
        self.register_buffer("used", torch.zeros((), dtype=torch.bool))

    def trained_in(self, phase: int) -> list[nn.Parameter]:
        """Return the weights in the second phase, nothing in the first one."""
        return [self.weight] if phase == 1 else []

    def begin_phase(self, phase: int, learned: AdaptedFeatures) -> None:
        """Set the weights to the class embeddings at the begin of the second phase."""
        if phase == 1:
            self.weight.copy_(functional.normalize(learned.text.float(), dim=-1))
        self.used.fill_(phase == 1)  # last: the text above is computed when it is asked for, without the weights

    def known_embeddings(self, embeddings: Tensor, classes: Sequence[str]) -> Tensor:
        """Return class embeddings `[..., C, D]`: the weights of classes that were learned, the others' text."""
        rows = torch.tensor([self.rows.get(name, -1) for name in classes], device=embeddings.device)
        return torch.where((rows >= 0).unsqueeze(-1) & self.used, self.weight[rows], embeddings)


class LinearHead(Adaptation):
    """Cross-modal adaptation's linear head on unit features (Lin et al., CVPR 2023, arXiv:2301.06267).

    The head has no bias, and its weight rows `[C, D]` aren't normalised, so that their norms may grow.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        start: initial weight rows: the zero-shot class embeddings, or random.
        logit_scale: logarithm of the scale of the logits.

    Attributes:
        scale: scale of the logits, used instead of the backbone's.
    """

    averages_raw_text = True

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        start: Literal["zero_shot", "random"] = "zero_shot",
        logit_scale: float = 4.60517,
    ) -> None:
        super().__init__(clip, task)
        self.declare(fixed_classes=tuple(task.class_names))
        self.scale = math.exp(logit_scale)
        self.zero_shot = self.class_embeddings(self.frozen_text(clip, task.class_names))
        random = nn.Linear(clip.width or 0, len(task.class_names), bias=False).weight
        self.weight = nn.Parameter(self.zero_shot.clone() if start == "zero_shot" else random.detach())

    def class_embeddings(self, text: Tensor) -> Tensor:
        """Return the zero-shot class embeddings `[..., C, D]`: the mean of raw text features, normalised."""
        return functional.normalize(text.float().mean(dim=-2), dim=-1)

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return logits `[B, C]` of image or text features `[B, D]`, with the head's own scale and weights.

        The arguments `text` and `scale` are ignored.
        """
        return self.scale * self.features(functional.normalize(image, dim=-1)) @ self.weight.T

    def features(self, unit: Tensor) -> Tensor:
        """Return the input `[B, D]` of the linear layer, given unit features; the same unless overridden."""
        return unit

    @torch.no_grad()
    def interpolate(self, ratio: float) -> None:
        """Interpolate the weight rows with the zero-shot class embeddings (the paper's WiSE-FT).

        This holds for a random start as well. Nothing but the rows is interpolated; ratio 1 leaves them as they are.
        """
        self.weight.copy_(torch.lerp(self.zero_shot, self.weight, ratio))


class AdaptedHead(LinearHead):
    """Cross-modal adaptation's adapter before its linear head (Lin et al., CVPR 2023, arXiv:2301.06267).

    The adapter is CLIP-Adapter's bottleneck, applied to the unit feature; its output isn't normalised again.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        start: initial weight rows of the head: the zero-shot class embeddings, or random.
        logit_scale: logarithm of the scale of the logits.
        ratio: weight of the adapted feature.
        reduction: divisor of the adapter's hidden width, which is D // reduction.

    Raises:
        UserError: `reduction` is larger than D, so that there would be no hidden channel.
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
        """Return the weighted mean `[B, D]` of adapted and unit features."""
        return mix(self.down, self.up, unit, self.ratio)
