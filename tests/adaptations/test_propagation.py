"""Labels spread over a graph of images, for others: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tests.small import TASK, adaptation, close

NODE = "method.adaptation."


def unit(count, seed=0):
    return functional.normalize(torch.randn(count, 64, generator=torch.Generator().manual_seed(seed)), dim=-1)


def fitted(*overrides):
    built = adaptation("inductive_label_propagation", *overrides)
    built.fit_closed_form(SimpleNamespace(support=TASK.support, text=unit(5)))
    return built


def dense(built, image, neighbours, gamma, alpha, least=0.0, most=1.0):
    """The same by a solve of the whole system, with what an image isn't joined to as zeros."""
    text, images = unit(5), functional.normalize(TASK.support.image.mean(dim=0), dim=-1)

    def joined(rows, nodes, power, clipped):
        similarities = rows @ nodes.T
        near = similarities.topk(min(neighbours, len(nodes)))
        values = near.values.clamp(min=0) if clipped else near.values
        weights = ((values - least) / (most - least)).clamp(min=-9.0 if clipped else 0) ** power
        return torch.zeros_like(similarities).scatter(1, near.indices, weights)

    to_images, to_classes = joined(images, images, 1, False), joined(images, text, gamma, False)
    half = torch.cat([torch.zeros(5, 5 + len(images)), torch.cat([to_classes, to_images], dim=1)])
    graph = (half + half.T).fill_diagonal_(0)
    root = graph.sum(dim=1).where(graph.sum(dim=1) > 0, torch.tensor(1.0)).rsqrt().diag()
    solved = (torch.eye(len(graph)) - alpha * root @ graph @ root).inverse()[:, :5]
    return torch.cat([joined(image, text, gamma, True), joined(image, images, 1, True)], dim=1) @ solved


@torch.no_grad()
def test_scores_are_those_of_the_whole_system():
    image = unit(7, seed=3)
    built = fitted(f"{NODE}neighbours=3", f"{NODE}gamma=2.5", f"{NODE}alpha=0.6")
    close(built.scores(image * 3, unit(5) * 2), dense(built, image, 3, 2.5, 0.6), 1e-5)
    scaled = fitted(f"{NODE}neighbours=3", f"{NODE}gamma=2", f"{NODE}scale_similarities=true")
    least, most = scaled.similarity_range.tolist()
    assert least != 0 and most == pytest.approx(1)
    close(scaled.scores(image, unit(5)), dense(scaled, image, 3, 2, 0.3, least, most), 1e-5)


@torch.no_grad()
def test_sparse_keeps_the_largest_of_each_node():
    whole, sparse = fitted(), fitted(f"{NODE}sparse=true")
    assert ((sparse.received != 0).sum(dim=-1) == 1).all()
    close(sparse.received.amax(dim=-1), whole.received.amax(dim=-1))


@torch.no_grad()
def test_an_image_below_the_range_has_finite_scores():
    built = fitted(f"{NODE}gamma=2.5", f"{NODE}scale_similarities=true")
    built.similarity_range.copy_(torch.tensor([0.5, 1.0]))
    assert built.logits(-unit(5), unit(5), 1.0).isfinite().all()
