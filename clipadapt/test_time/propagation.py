"""Labels that spread from class names over a graph of classes and images."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.test_time.views import Count
from clipadapt.test_time.whole_set import IMAGES, NearestImages, WholeSetMethod

SOLVED, MOST_STEPS = 1e-6, 50
"""Relative residual at which conjugate gradients stop, and their most steps, as in the authors' code."""


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
        return self.propagated(self.laplacian(features, text), len(text), features)[len(text) :]

    def propagated(self, laplacian: Any, classes: int, features: Tensor) -> Tensor:
        """Return what each of C + N nodes gets from each of the C classes, `[C + N, C]`, where features are."""
        from scipy.sparse.linalg import cg  # takes long to import, and this method alone needs it

        found = np.empty((laplacian.shape[0], classes), np.float32)
        for label in range(classes):
            start = np.zeros(laplacian.shape[0])
            start[label] = 1
            found[:, label] = cg(laplacian, start, rtol=SOLVED, maxiter=MOST_STEPS)[0]
        return torch.from_numpy(found).to(features.device)

    def laplacian(self, features: Tensor, text: Tensor) -> Any:
        """Return I minus alpha times the normalised graph of classes and images, a sparse matrix `[C + N, C + N]`."""
        from scipy import sparse  # as above

        edges = self.edges(features, text)
        size = len(text) + len(features)
        weights = sparse.coo_array((edges.values, (edges.rows, edges.columns)), shape=(size, size)).tocsr()
        weights = weights + weights.T
        weights.setdiag(0)
        degrees = weights.sum(axis=1)
        root = sparse.diags_array(1 / np.sqrt(np.where(degrees == 0, 1, degrees)))
        return (sparse.eye_array(size) - self.alpha * (root @ weights @ root)).tocsr()

    def edges(self, features: Tensor, text: Tensor) -> "Edges":
        """Return the edges of unit features `[N, D]` to near images, and to near classes by unit text `[C, D]`."""
        to_images = NearestImages.find(features, features, self.neighbours)
        to_classes = NearestImages.find(features, text, self.neighbours)
        values = [one.values.double().cpu().numpy().ravel() for one in (to_images, to_classes)]
        if self.scale_similarities:
            least, most = min(map(np.min, values)), max(map(np.max, values))
            values = [(one - least) / (most - least or 1) for one in values]
        near, classes = (one.clip(min=0) for one in values)
        columns = [to_images.images.cpu().numpy().ravel() + len(text), to_classes.images.cpu().numpy().ravel()]
        rows = [np.arange(len(features)).repeat(one.images.shape[1]) + len(text) for one in (to_images, to_classes)]
        return Edges(np.concatenate([near, classes**self.gamma]), np.concatenate(rows), np.concatenate(columns))


@dataclass(frozen=True)
class Edges:
    """Weights of the edges of a graph, and the nodes that they are from and to."""

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
