"""Class weights of zero-shot and adapted CLIP, and their places in a plane."""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks import Classifier

MATRIX = 2
TRIED, TOLERANCE = 16, 1e-3
"""Random features at which logits are compared with those of class weights, and the largest relative difference."""


@torch.no_grad()
def class_weights(classifier: Classifier) -> Tensor:
    """Return the unit class weights `[C, D]` of a classifier whose logits are linear in unit image features.

    They are read from the logits of the axes, so that it doesn't matter where a method has them.

    Raises:
        UserError: the logits depend on more than one unit feature of an image, or not linearly.
    """
    needs, text = classifier.adaptation.capabilities, classifier.precompute()
    if text is None or text.dim() != MATRIX or needs.all_tokens or classifier.clip.width is None:
        raise UserError("the logits of this method are no products of image features and class weights")
    axes = torch.eye(classifier.clip.width, device=text.device)
    weights = _odd(classifier, axes, text).T
    tried = functional.normalize(torch.randn(TRIED, len(axes), generator=torch.Generator().manual_seed(0)), dim=-1)
    tried = tried.to(text.device)
    found, expected = tried @ weights.T, _odd(classifier, tried, text)
    if (found - expected).abs().max() > TOLERANCE * expected.abs().max():
        raise UserError("the logits of this method are no products of image features and class weights")
    return functional.normalize(weights, dim=-1).cpu()


def before_and_after(zero_shot: Classifier, adapted: Classifier) -> tuple[Tensor, Tensor]:
    """Return the class weights `[C, D]` of zero-shot and of adapted CLIP.

    Raises:
        UserError: as of `class_weights`; or they are the same.
    """
    before, after = class_weights(zero_shot), class_weights(adapted)
    if (before - after).abs().max() <= TOLERANCE:
        raise UserError(f"the class weights are zero-shot's, to within {TOLERANCE:g}")
    return before, after


def in_plane(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Return points `[C, 2]` of both class weights by their two principal components, and the shares of variance."""
    both = torch.cat([before, after]).double()
    _, values, axes = torch.linalg.svd(both - both.mean(dim=0), full_matrices=False)
    shares = values.square() / values.square().sum()
    points = (both - both.mean(dim=0)) @ axes[:2].T
    one, other = points.split(len(before))
    return one, other, cast(tuple[float, float], tuple(shares[:2].tolist()))


def _odd(classifier: Classifier, features: Tensor, text: Tensor) -> Tensor:
    """Return half of the difference of the logits of features `[B, D]` and of their opposites: without a bias."""
    return (classifier.logits(features, text) - classifier.logits(-features, text)) / 2
