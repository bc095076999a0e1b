"""Features of the support images, kept for test-time methods."""

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView, Templates


class SupportMemory(Adaptation):
    """The static memory of DMN-TF: unit features of the support images (Zhang et al., CVPR 2024, arXiv:2403.17589).

    Every view of an image is an entry of its own. The logits are zero-shot CLIP's: a test-time method reads the memory.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        templates: sentences with `{}` to use instead of the task's; several templates form an ensemble.
    """

    keys: Tensor
    labels: Tensor

    def __init__(self, clip: DualEncoder, task: SupportView, templates: Templates | None = None) -> None:
        super().__init__(clip, task)
        self.templates = templates or task.templates
        views, images, width = task.support.image.shape
        self.register_buffer("keys", torch.zeros(views * images, width))
        self.register_buffer("labels", torch.zeros(views * images, dtype=torch.long))
        self.declare(fixed_classes=tuple(task.class_names), num_fitted_values=self.keys.numel() + self.labels.numel())

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Keep the features of the support set."""
        keys, labels = learned.support.flat()
        self.keys.copy_(functional.normalize(keys, dim=-1))
        self.labels.copy_(labels)

    def support_features(self) -> LabelledFeatures:
        """Return the memory: features `[1, N, D]` and labels `[N]`."""
        return LabelledFeatures(self.keys[None], self.labels)
