"""The plain side of tuning to one image: the published procedures, with whole prompts and all views at every pass.

The image tower runs in every forward pass, as in the papers' code; class weights that all images share are given.
"""

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.plain import CoOp, class_embeddings, logits
from clipadapt.backbone.open_clip import CLIP


def confident(found: Tensor, selection: float) -> Tensor:
    """Return the logits `[K, C]` of the share `selection` of views with the lowest entropy, given all `[V, C]`."""
    return found[pointwise(found).argsort()[: int(len(found) * selection)]]


def pointwise(found: Tensor) -> Tensor:
    """Return the entropy `[V]` of each view's probabilities, given logits `[V, C]`."""
    logs = found.log_softmax(dim=-1)
    return -(logs.exp() * logs).sum(dim=-1)


def of_the_mean(found: Tensor) -> Tensor:
    """Return the entropy of the views' mean probability, given logits `[V, C]`."""
    mean = found.softmax(dim=-1).mean(dim=0)
    return -(mean * mean.log()).sum()


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step down the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def tpt(model: CoOp, start: Tensor, views: Tensor, selection: float, lr: float) -> Tensor:
    """Return logits `[C]` of an image's first view after one step on its views (Shu et al., arXiv:2209.07511).

    Args:
        model: the prompts and towers.
        start: the context `[n, W]` that every image starts from.
        views: the views `[V, 3, height, width]`.
        selection: the share of the views with the lowest entropy, which are used.
        lr: learning rate of AdamW.
    """
    with torch.no_grad():
        model.context.copy_(start)
    step(torch.optim.AdamW(model.parameters(), lr=lr), of_the_mean(confident(model(views), selection)))
    with torch.no_grad():
        return model(views[:1])[0]


def rtpt(model: CoOp, start: Tensor, views: Tensor, selection: float, lr: float, neighbours: int) -> Tensor:
    """Return logits `[C]`, the mean over all views weighted by reliability at temperature 0.01 (arXiv:2504.11195).

    Args:
        model: as for `tpt`, like the arguments that follow.
        start: the context that every image starts from.
        views: the views.
        selection: the share of the views that are used in the step.
        lr: learning rate of AdamW.
        neighbours: number of nearest other views whose mean similarity is a view's reliability.
    """
    with torch.no_grad():
        model.context.copy_(start)
    loss = pointwise(confident(model(views), selection)).mean()
    step(torch.optim.AdamW(model.parameters(), lr=lr), loss)
    with torch.no_grad():
        image = model.clip.model.encode_image(views)
        tuned = logits(model.clip, image, class_embeddings(model.clip, model.ids, model.context))
        unit = functional.normalize(image.float(), dim=-1)
        others = (unit @ unit.T).fill_diagonal_(-1)
        reliability = others.sort(descending=True).values[:, :neighbours].mean(dim=1)
        return (reliability / 0.01).softmax(dim=0) @ tuned


def tps(clip: CLIP, prototypes: Tensor, views: Tensor, selection: float, lr: float) -> Tensor:
    """Return logits `[C]` of an image's first view after one step of a shift of prototypes (arXiv:2403.12952).

    Args:
        clip: the backbone.
        prototypes: unit class weights `[C, D]`, which all images start from.
        views: as for `tpt`, like the arguments that follow.
        selection: the share of the views that are used.
        lr: learning rate of AdamW.
    """

    def found(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            image = clip.model.encode_image(pixels)
        return logits(clip, image, functional.normalize(prototypes + shift, dim=-1))

    shift = torch.nn.Parameter(torch.zeros_like(prototypes))
    step(torch.optim.AdamW([shift], lr=lr), of_the_mean(confident(found(views), selection)))
    with torch.no_grad():
        return found(views[:1])[0]
