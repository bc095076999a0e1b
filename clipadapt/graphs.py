"""Graphs of images by the cosines of their features, and of images and classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_PRODUCTS = 2**25
"""The number of inner products that are computed at once."""
SOLVED, MOST_STEPS = 1e-6, 50
"""Relative residual at which conjugate gradients stop, and their most steps, as in ZLaP's released code."""


@dataclass(frozen=True)
class NearestImages:
    """A sparse graph: edges of each of R rows to its nearest of N images.

    Attributes:
        values: weights of the edges, `[R, K]`.
        images: indices of the images, `[R, K]`.
        count: number N of images.
    """

    values: Tensor
    images: Tensor
    count: int

    @classmethod
    def find(cls, rows: Tensor, images: Tensor, neighbours: int, skip: int = 0) -> "NearestImages":
        """Find the images of largest inner product, exactly, in chunks: rows `[R, D]`, images `[N, D]`.

        Args:
            rows: features to find neighbours of.
            images: features to find them among.
            neighbours: how many edges each row gets, at most as many as there are images.
            skip: how many of the nearest to leave out, such as the image itself.
        """
        most = min(neighbours + skip, len(images))
        parts = rows.split(max(1, MOST_PRODUCTS // len(images)))
        found = [(part @ images.T).topk(most, dim=-1) for part in parts]
        values, indices = (torch.cat(each)[:, skip:] for each in zip(*found, strict=True))
        return cls(values, indices, len(images))

    def to_rows(self, x: Tensor) -> Tensor:
        """Return for each row the weighted sum of its images' values: `[N, C]` to `[R, C]`."""
        total = x.new_zeros(len(self.values), x.shape[-1])
        for values, images in zip(self.values.T, self.images.T, strict=True):
            total.addcmul_(values[:, None], x[images])
        return total

    def to_images(self, x: Tensor) -> Tensor:
        """Return for each image the weighted sum of the rows that have an edge to it: `[R, C]` to `[N, C]`."""
        total = x.new_zeros(self.count, x.shape[-1])
        for values, images in zip(self.values.T, self.images.T, strict=True):
            total.index_add_(0, images, values[:, None] * x)
        return total

    def near(self, z: Tensor) -> Tensor:
        """Return for each image the weighted sum `[N, C]` of what images with an edge from or to it have."""
        return self.to_images(z) + self.to_rows(z)


@dataclass(frozen=True)
class ClassGraph:
    """ZLaP's graph of C classes and N images (Stojnic et al., CVPR 2024, arXiv:2404.04072).

    Attributes:
        to_images: edges of the images to near ones.
        to_classes: edges of the images to near classes.
        gamma: power on the weights of the edges to classes.
        alpha: share that a node passes on.
        least: the similarity whose weight is 0.
        most: the similarity whose weight is 1.
    """

    to_images: NearestImages
    to_classes: NearestImages
    gamma: float
    alpha: float
    least: float = 0.0
    most: float = 1.0

    @classmethod
    def build(
        cls, features: Tensor, text: Tensor, neighbours: int, gamma: float, alpha: float, scale_similarities: bool
    ) -> "ClassGraph":
        """Build the graph of unit features `[N, D]` of images and unit text `[C, D]`.

        Args:
            features: the images.
            text: the classes.
            neighbours: number of nearest images of each image, itself among them, and of its nearest classes.
            gamma: as the attribute.
            alpha: as the attribute.
            scale_similarities: whether weights are similarities brought to 0 to 1 by the range of all edges.
        """
        to_images, to_classes = (NearestImages.find(features, nodes, neighbours) for nodes in (features, text))
        if not scale_similarities:
            return cls(to_images, to_classes, gamma, alpha)
        ranges = [one.values.double().aminmax() for one in (to_images, to_classes)]
        least, most = min(one.min.item() for one in ranges), max(one.max.item() for one in ranges)
        return cls(to_images, to_classes, gamma, alpha, least, most if most > least else least + 1)

    @property
    def weights(self) -> np.ndarray:
        """Return the weights of the edges to images, then to classes, one row of the graph after another."""
        found = [one.values.double().cpu().numpy().ravel() for one in (self.to_images, self.to_classes)]
        near, classes = (((one - self.least) / (self.most - self.least)).clip(min=0) for one in found)
        return np.concatenate([near, classes**self.gamma])

    def laplacian(self) -> Any:
        """Return I minus alpha times the normalised graph, a sparse matrix `[C + N, C + N]`; classes come first."""
        from scipy import sparse  # takes long to import, and this graph alone needs it

        ends = [one.images.cpu().numpy() for one in (self.to_images, self.to_classes)]
        classes, size = self.to_classes.count, self.to_classes.count + len(ends[0])
        rows = [np.arange(len(one)).repeat(one.shape[1]) + classes for one in ends]
        columns = [ends[0].ravel() + classes, ends[1].ravel()]
        places = np.concatenate(rows), np.concatenate(columns)
        found = sparse.coo_array((self.weights, places), shape=(size, size)).tocsr()
        found = found + found.T
        found.setdiag(0)
        degrees = found.sum(axis=1)
        root = sparse.diags_array(1 / np.sqrt(np.where(degrees == 0, 1, degrees)))
        return (sparse.eye_array(size) - self.alpha * (root @ found @ root)).tocsr()

    def received(self) -> Tensor:
        """Return what each node gets from each class where all pass on a share of what they have, `[C + N, C]`."""
        from scipy.sparse.linalg import cg  # as above

        laplacian, classes = self.laplacian(), self.to_classes.count
        found = np.empty((laplacian.shape[0], classes), np.float32)
        for label in range(classes):
            start = np.zeros(len(found))
            start[label] = 1
            found[:, label] = cg(laplacian, start, rtol=SOLVED, maxiter=MOST_STEPS)[0]
        return torch.from_numpy(found).to(self.to_images.values.device)
