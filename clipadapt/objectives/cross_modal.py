"""Prompts as additional training samples."""

import torch
from torch import Tensor

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView, prompts_by_name
from clipadapt.objectives.base import Objective, Output
from clipadapt.objectives.supervised import cross_entropy


class CrossModal(Objective):
    """Cross entropy of a batch of images and as many prompts (Lin et al., CVPR 2023, arXiv:2301.06267).

    Each template filled with a name of a class is a sample of that class. The text features of prompts are classified
    in the same way as image features.

    Args:
        clip: the frozen backbone.
        task: class names and templates.

    Attributes:
        text: raw text features of the prompts, `[N * templates, D]` of N names, ordered by class.
        labels: class indices of the prompts, `[N * templates]`.
    """

    def __init__(self, clip: DualEncoder, task: SupportView) -> None:
        super().__init__(clip, task)
        prompts, counts = prompts_by_name(task.templates, task)
        text = clip.text_features(prompts)
        self.text = text.flatten(0, 1)
        repeats = torch.tensor(counts, device=text.device) * text.shape[1]
        self.labels = torch.arange(len(counts), device=text.device).repeat_interleave(repeats)

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute one loss, `cross_entropy`, the mean over images and prompts."""
        drawn = self.draw(len(labels))
        logits = torch.cat([output.logits, output.classify(self.text[drawn])])
        labels = torch.cat([labels, self.labels[drawn]])
        return {"cross_entropy": cross_entropy(logits, labels, output.class_weights)}

    def draw(self, count: int) -> Tensor:
        """Draw indices `[count]` of prompts in random order; no prompt repeats before all were drawn."""
        prompts = len(self.labels)
        rounds = [torch.randperm(prompts, device=self.labels.device) for _ in range(-(-count // prompts))]
        return torch.cat(rounds)[:count]
