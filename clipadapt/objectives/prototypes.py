"""Class weights constrained to stay near the zero-shot text features."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import LabelledFeatures, SupportView, format_templates, mean_over_names, prompts_by_name
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy


class PrototypeConstraint(CrossEntropy):
    """CLAP: cross entropy plus a penalty on class weights (Silva-Rodriguez et al., CVPR 2024, arXiv:2312.12730).

    The penalty is the mean over classes of a multiplier times the squared distance of raw class embeddings from raw
    text features. A class's multiplier is the mean zero-shot probability of that class over the views of its support
    images; multipliers are not updated during training.

    Args:
        clip: the frozen backbone.
        task: class names as written, templates and support set.
        constraint: `none`: no penalty (ZS-LP). `l2`: as above. `l2-constant`: every class has the mean multiplier.
            `l2-corrected`: multipliers are divided by their mean. `l2-balanced`: all multipliers are 1.

    Attributes:
        start: raw text features, the mean over templates, `[C, D]`.
        multipliers: multipliers of the classes, `[C]`; zero without a penalty.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        constraint: Literal["none", "l2", "l2-constant", "l2-corrected", "l2-balanced"] = "l2",
    ) -> None:
        super().__init__(clip, task)
        prompts, counts = prompts_by_name(task.templates, task, format_templates)
        self.start = mean_over_names(clip.text_features(prompts).float(), counts).mean(dim=1)
        self.scale = clip.scale
        self.constraint = constraint
        self.multipliers = self._multipliers(task)

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute two losses, `cross_entropy` and `penalty`; only the first with constraint `none`."""
        losses = super().forward(output, labels)
        return losses if self.constraint == "none" else losses | {"penalty": self.penalty(output.text)}

    def penalty(self, prototypes: Tensor) -> Tensor:
        """Compute the penalty on raw class embeddings `[C, D]`."""
        return (self.multipliers * ((prototypes.float() - self.start) ** 2).sum(dim=-1)).mean()

    def zero_shot(self, image: Tensor) -> Tensor:
        """Compute zero-shot logits `[B, C]` of image features `[B, D]`."""
        return self.scale * functional.normalize(image, dim=-1) @ functional.normalize(self.start, dim=-1).T

    def _multipliers(self, task: SupportView) -> Tensor:
        if self.constraint in ("none", "l2-balanced"):
            return torch.full_like(self.start[:, 0], float(self.constraint == "l2-balanced"))
        found = self._own_probabilities(task.support)
        if self.constraint == "l2-constant":
            return found.mean().expand_as(found)
        return found / found.mean() if self.constraint == "l2-corrected" else found

    def _own_probabilities(self, support: LabelledFeatures) -> Tensor:
        """Compute the mean probability `[C]` of each class over its own images; zero for classes without images."""
        image, labels = support.flat()
        own = self.zero_shot(image).softmax(dim=-1)[torch.arange(len(image)), labels]
        counts = labels.bincount(minlength=len(self.start)).clamp(min=1)
        return torch.zeros_like(self.start[:, 0]).index_add(0, labels, own) / counts
