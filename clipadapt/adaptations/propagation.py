"""Labels that spread from class names over a graph of images without labels, for images that come later."""

from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations.base import ZeroShot
from clipadapt.adaptations.labelled_images import unit_means
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.graphs import ClassGraph
from clipadapt.interfaces import AdaptedFeatures, SupportView, Templates


class InductiveLabelPropagation(ZeroShot):
    """ZLaP for images one by one: label propagation over others (Stojnic et al., CVPR 2024, arXiv:2404.04072).

    The nodes of a graph are the classes and the images of the support set, whose labels are not used. What each node
    gets from each class is computed once. An image that comes later is joined to its nearest images and classes, and
    its scores are the sum of what these get, by similarity.

    Args:
        clip: the frozen backbone.
        task: class names, templates and support set.
        templates: sentences with `{}` to use instead of the task's; several templates form an ensemble.
        keep_hyphens: whether to keep hyphens in class names; if not, spaces replace them.
        neighbours: number of nearest images of each image, itself among them, and of its nearest classes.
        gamma: power on the similarities of images and classes.
        alpha: share that a node passes on.
        scale_similarities: whether all similarities are brought to 0 to 1 by the range of the graph's first.
        sparse: whether a node keeps only what it gets from the class that it gets most from.

    Attributes:
        images: unit features `[N, D]` of the graph's images, each the normalised mean of an image's views.
        received: what the classes and the images get from each class, `[C + N, C]`.
        similarity_range: similarities that weigh 0 and 1, `[2]`.
    """

    images: Tensor
    received: Tensor
    similarity_range: Tensor

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        templates: Templates | None = None,
        keep_hyphens: bool = True,
        neighbours: Annotated[int, Ge(1)] = 5,
        gamma: Annotated[float, Ge(0)] = 5.0,
        alpha: Annotated[float, Interval(ge=0, lt=1)] = 0.3,
        scale_similarities: bool = False,
        sparse: bool = False,
    ) -> None:
        super().__init__(clip, task, templates, keep_hyphens)
        self.neighbours, self.gamma, self.alpha = neighbours, gamma, alpha
        self.scale_similarities, self.sparse = scale_similarities, sparse
        classes, (_, images, width) = len(task.class_names), task.support.image.shape
        self.register_buffer("images", torch.zeros(images, width))
        self.register_buffer("received", torch.zeros(classes + images, classes))
        self.register_buffer("similarity_range", torch.tensor([0.0, 1.0]))
        fitted = self.images.numel() + self.received.numel() + 2 * scale_similarities
        self.declare(fixed_classes=tuple(task.class_names), num_fitted_values=fitted, supports_batched_params=False)

    def fit_closed_form(self, learned: AdaptedFeatures) -> None:
        """Compute what each node of the graph of the support set's images gets from each class."""
        self.images.copy_(unit_means(learned.support))
        text = functional.normalize(learned.text.float(), dim=-1)
        graph = ClassGraph.build(self.images, text, self.neighbours, self.gamma, self.alpha, self.scale_similarities)
        received = graph.received()
        if self.sparse:
            most = received.max(dim=-1, keepdim=True)
            received = torch.zeros_like(received).scatter(-1, most.indices, most.values)
        self.received.copy_(received)
        self.similarity_range.copy_(torch.tensor([graph.least, graph.most]))

    def logits(self, image: Tensor, text: Tensor, scale: float) -> Tensor:
        """Return the logarithms `[B, C]` of the scores, whose softmax is their share."""
        return self.scores(image, text).clamp(min=torch.finfo(torch.float32).tiny).log()

    def scores(self, image: Tensor, text: Tensor) -> Tensor:
        """Return what each image gets from each class, `[B, C]`, given features `[B, D]` and text `[C, D]`."""
        image, text = (functional.normalize(one.float(), dim=-1) for one in (image, text))
        from_images = self.gathered(image @ self.images.T, self.received[len(text) :])
        return from_images + self.gathered(image @ text.T, self.received[: len(text)], self.gamma)

    def gathered(self, similarities: Tensor, received: Tensor, power: float = 1.0) -> Tensor:
        """Return the sum `[B, C]` of what the nearest of N nodes get, `[N, C]`, weighted by similarities `[B, N]`."""
        least, most = self.similarity_range
        near = similarities.topk(min(self.neighbours, len(received)), dim=-1)
        weights = ((near.values.clamp(min=0) - least) / (most - least)) ** power
        # Below the graph's range a weight is negative, and has no power but a whole one: it counts as nothing.
        return (weights.nan_to_num(nan=0.0).unsqueeze(-1) * received[near.indices]).sum(dim=-2)
