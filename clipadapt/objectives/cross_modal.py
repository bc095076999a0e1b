"""Text as training samples beside images."""

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView, class_prompts
from clipadapt.objectives.base import Objective, Output


class CrossModal(Objective):
    """Cross entropy of a batch of images and as many prompts (Lin et al., CVPR 2023, arXiv:2301.06267).

    Each template of each class is a sample of its class, classified as an image is.

    Args:
        clip: the frozen backbone; read, not kept.
        task: class names and templates.

    Attributes:
        text: raw features of the prompts, `[C * templates, D]`, those of one class after another.
        labels: their classes.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        text = clip.text_features(class_prompts(task.templates, task.class_names))
        self.text = text.flatten(0, 1)
        self.labels = torch.arange(len(text), device=text.device).repeat_interleave(text.shape[1])

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """One loss, `cross_entropy`, the mean over images and prompts."""
        drawn = self.draw(len(labels))
        logits = torch.cat([output.logits, output.classify(self.text[drawn])])
        return {"cross_entropy": functional.cross_entropy(logits.float(), torch.cat([labels, self.labels[drawn]]))}

    def draw(self, count: int) -> Tensor:
        """Indices of so many prompts, `[count]`, in random order; none comes again before all have come."""
        prompts = len(self.labels)
        rounds = [torch.randperm(prompts, device=self.labels.device) for _ in range(-(-count // prompts))]
        return torch.cat(rounds)[:count]
