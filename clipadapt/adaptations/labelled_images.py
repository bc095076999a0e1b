"""Features of labelled images that are kept for a test-time method."""

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import FirstTemplate
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import AdaptedFeatures, LabelledFeatures, SupportView, Templates

VALIDATION = 4
"""The most validation images of a class that are kept, as in TransCLIP's few-shot splits."""
NO_LABEL = -1
"""Label of a free place."""


class LabelledImages(FirstTemplate):
    """Zero-shot CLIP with the features of support and validation images kept, for TransCLIP (arXiv:2406.01837).

    The logits are zero-shot's; a test-time method reads the features (Zanella et al., NeurIPS 2024).

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        templates: sentences with `{}` to use instead of the task's; the first of several counts.
        keep_hyphens: whether to keep hyphens in class names; if not, spaces replace them.
        search: whether validation images are kept, to choose a weight by them; the first four of each class.

    Attributes:
        support: unit features `[S, D]`, each the normalised mean of an image's views.
        support_labels: their classes, `[S]`.
        validation: unit features `[4 C, D]`; none without a search.
        validation_labels: their classes, -1 in free places.
    """

    support: Tensor
    support_labels: Tensor
    validation: Tensor
    validation_labels: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        keep_hyphens: bool = True,
        search: bool = True,
    ) -> None:
        super().__init__(clip, task, templates, keep_hyphens)
        self.names, (_, images, width) = list(task.class_names), task.support.image.shape
        places = VALIDATION * len(self.names) * search
        self.register_buffer("support", torch.zeros(images, width))
        self.register_buffer("support_labels", torch.full((images,), NO_LABEL))
        self.register_buffer("validation", torch.zeros(places, width))
        self.register_buffer("validation_labels", torch.full((places,), NO_LABEL))
        self.declare(fixed_classes=tuple(self.names), supports_batched_params=False)
        self.declare(needs_validation=search, validation_switch="search")

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Keep the features of the support set, and of the first validation images of each class."""
        self.support.copy_(unit_means(learned.support))
        self.support_labels.copy_(learned.support.labels)
        if len(self.validation):
            labels = learned.validation.labels
            own = [(labels == label).nonzero().flatten()[:VALIDATION] for label in range(len(self.names))]
            chosen = torch.cat(own).sort().values
            self.validation[: len(chosen)] = unit_means(learned.validation)[chosen]
            self.validation_labels[: len(chosen)] = labels[chosen]


def unit_means(samples: LabelledFeatures) -> Tensor:
    """Return the normalised mean `[N, D]` of the raw features of each image's views."""
    return functional.normalize(samples.image.float().mean(dim=0), dim=-1)
