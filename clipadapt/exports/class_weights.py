"""format=classifier: class weights, so that one matrix product classifies features of the frozen image tower."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.exports.preprocessing import describe
from clipadapt.exports.request import Request, Written
from clipadapt.tasks import Classifier

TENSORS, ARRAY, CARD = "classifier.safetensors", "classifier.npy", "classifier.json"
ROUNDED = 1e-4
"""Error of logits, relative to the largest, that is rounding."""

WRITE_A_GRAPH = "format=onnx or format=torch writes the whole"


@dataclass(frozen=True)
class Weights:
    """Logits as one matrix product: `scale * x @ weight.T + bias`.

    Attributes:
        weight: `[C, D]`.
        bias: `[C]`.
        scale: the backbone's logit scale.
        normalised: whether x are unit features; if not, they are raw.
    """

    weight: Tensor
    bias: Tensor
    scale: float
    normalised: bool

    def logits(self, features: Tensor) -> Tensor:
        """Return logits `[B, C]` of raw features `[B, D]`."""
        x = functional.normalize(features, dim=-1) if self.normalised else features
        return self.scale * x @ self.weight.T + self.bias


def write(request: Request, folder: Path) -> Written:
    """Write `classifier.safetensors`, `classifier.npy` and `classifier.json`.

    Raises:
        UserError: the image side isn't the frozen tower, class weights depend on the image, or logits are no matrix
            product of features.
    """
    head = check_image_side(request)
    found = find_weights(head, request)
    save_file(
        {"weight": found.weight, "bias": found.bias, "scale": torch.tensor(found.scale)},
        folder / TENSORS,
        metadata=describe(request.predictor),
    )
    np.save(folder / ARRAY, found.weight.numpy())
    (folder / CARD).write_text(json.dumps(card(found, request), indent=2) + "\n")
    read = load_file(folder / TENSORS)
    again = Weights(read["weight"], read["bias"], float(read["scale"]), found.normalised)
    compared = request.compare(lambda pixels: again.logits(head.clip.image.run(pixels)).softmax(-1))
    features = "unit features" if found.normalised else "raw features"
    bias = " + bias" if found.bias.any() else ""
    return Written(compared, (f"probabilities are softmax({found.scale:.4g} * {features} @ weight.T{bias})",))


def check_image_side(request: Request) -> Classifier:
    """Return the head, if features of the frozen image tower are all that it needs of an image.

    Raises:
        UserError: it needs more; the sentence says what.
    """
    head = request.head
    if not isinstance(head, Classifier):
        raise UserError("format=classifier is for classification: this kind of task has no class weights")
    adaptation = head.adaptation
    if adaptation.capabilities.conditional:
        raise UserError(f"this method's class weights depend on the image: {WRITE_A_GRAPH}")
    if adaptation.capabilities.all_tokens:
        raise UserError(f"this method needs the features of all patches of an image: {WRITE_A_GRAPH}")
    if changed := [*adaptation.edits("image"), *adaptation.stages("image")]:
        where = min(changed, key=head.image.points.index)
        raise UserError(
            f"this method changes the image side (at {where}), which class weights leave out: {WRITE_A_GRAPH}"
        )
    return head


def find_weights(head: Classifier, request: Request) -> Weights:
    """Return the weights of a head whose logits are one matrix product of unit or raw features.

    They are read from the logits of the axes of the joint space, and hold if they give the logits of features of images
    and of what was learned in that space, such as the keys of a cache.

    Raises:
        UserError: the logits are no such product.
    """
    text, scale = head.precompute(), head.clip.scale
    features = head.clip.image.run(next(request.examples.batches(head.clip))).float()
    width = features.shape[-1]
    learned = [x.detach().reshape(-1, width) for x in head.adaptation.state_dict().values() if x.shape[-1:] == (width,)]
    points, axes = torch.cat([features, *learned]), torch.eye(width)
    assert text is not None
    ahead, back, expected = (head.logits(x, text) for x in (axes, -axes, points))
    if ahead.shape == (width, len(head.class_names)):
        weight, bias = ((ahead - back) / 2 / scale).T.contiguous(), ((ahead + back) / 2).mean(dim=0)
        bias = bias * (bias.abs() > ROUNDED * ahead.abs().max())
        either = [Weights(weight, bias, scale, normalised) for normalised in (True, False)]
        errors = [float((each.logits(points) - expected).abs().max()) for each in either]
        if min(errors) <= ROUNDED * float(expected.abs().max()):
            return either[errors.index(min(errors))]
    raise UserError(f"this method's logits aren't one matrix product of image features: {WRITE_A_GRAPH}")


def card(found: Weights, request: Request) -> dict[str, Any]:
    """Return what the weights are, as plain values."""
    clip = request.head.clip
    return {
        "class_names": request.predictor.class_names,
        "scale": found.scale,
        "bias": found.bias.tolist() if found.bias.any() else None,
        "features": "unit" if found.normalised else "raw",
        "shape": list(found.weight.shape),
        "backbone": {**clip.source, "fingerprint": clip.fingerprint},
    }
