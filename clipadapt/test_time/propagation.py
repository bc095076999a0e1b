"""Labels that spread from class names over a graph of classes and images."""

from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.graphs import ClassGraph
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import IMAGES, WholeSetMethod


class LabelPropagation(WholeSetMethod):
    """ZLaP: label propagation over all test images (Stojnic et al., CVPR 2024, arXiv:2404.04072).

    The nodes of a graph are the classes and the images. Each image has edges to its nearest images and to its nearest
    classes. The scores of an image are what it gets from each class where every node passes on a share of what it has.

    Args:
        images: number of images that are encoded together.
        neighbours: number of nearest images of each image, itself among them, and of its nearest classes.
        gamma: power on the similarities of images and classes.
        alpha: share that a node passes on.
        scale_similarities: whether all similarities are brought to 0 to 1 by their range first.
    """

    def __init__(
        self,
        images: Count = IMAGES,
        neighbours: Count = 5,
        gamma: Annotated[float, Ge(0)] = 5.0,
        alpha: Annotated[float, Interval(ge=0, lt=1)] = 0.3,
        scale_similarities: bool = False,
    ) -> None:
        super().__init__(images)
        self.neighbours, self.gamma, self.alpha, self.scale_similarities = neighbours, gamma, alpha, scale_similarities

    def compute_logits(self, features: Tensor, text: Tensor, adaptation: Adaptation) -> Tensor:
        """Compute the logarithms `[N, C]` of the scores of unit features `[N, D]`, whose softmax is their share."""
        return self.scores(features, text).clamp(min=torch.finfo(torch.float32).tiny).log()

    def scores(self, features: Tensor, text: Tensor) -> Tensor:
        """Return what each image gets from each class, `[N, C]`."""
        return self.graph(features, text).received()[len(text) :]

    def graph(self, features: Tensor, text: Tensor) -> ClassGraph:
        """Return the graph of unit features `[N, D]` and unit text `[C, D]`."""
        return ClassGraph.build(features, text, self.neighbours, self.gamma, self.alpha, self.scale_similarities)
