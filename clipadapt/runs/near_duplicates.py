"""Images of a data set that a backbone hardly tells apart: crops, copies of another size, and frames of one scene."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.duplicates import ImageIndex, describe_groups
from clipadapt.data.tasks import Split
from clipadapt.errors import DataError
from clipadapt.runs.methods import build_backbone, usual_device

BATCH, ROWS = 64, 1024


def find_near_duplicates(
    config: Mapping[str, Any],
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    cosine: float,
    update: Callable[[int], object] = lambda count: None,
) -> list[str]:
    """Return sentences on images nearly equal to one of another split, or of another label.

    Images that can't be read are left out.

    Args:
        config: settings, of which the backbone is built.
        splits: the splits by name.
        class_names: the names of the classes.
        cosine: the least cosine of their features.
        update: called with the number of images encoded since the last call.
    """
    device = usual_device()
    clip = build_backbone(config).to(device)
    places = [(name, index) for name, split in splits.items() for index in range(len(split))]
    kept, features = encode(clip, splits, places, update)
    labels = [splits[name].labels[index] for name, index in kept]
    pairs = [
        (kept[one], kept[other])
        for one, other in near_pairs(features, cosine)
        if kept[one][0] != kept[other][0] or labels[one] != labels[other]
    ]
    return describe_groups(splits, class_names, pairs, f"nearly equal (cosine {cosine:g} or more)")


@torch.no_grad()
def encode(
    clip: DualEncoder, splits: Mapping[str, Split], places: Sequence[ImageIndex], update: Callable[[int], object]
) -> tuple[list[ImageIndex], Tensor]:
    """Return the images that can be read, and their unit features `[N, D]`, on the CPU."""
    kept: list[ImageIndex] = []
    found = [torch.empty(0)]
    for first in range(0, len(places), BATCH):
        batch, pixels = places[first : first + BATCH], []
        for name, index in batch:
            try:
                pixels.append(clip.transform(splits[name].images[index]))
            except DataError:  # listed as a problem of its own
                continue
            kept.append((name, index))
        if pixels:
            x = torch.stack(pixels).to(clip.device, clip.dtype)
            found.append(normalize(clip.image.run(x).float(), dim=-1).cpu())
        update(len(batch))
    return kept, torch.cat(found[1:] or found)


def near_pairs(features: Tensor, cosine: float) -> list[tuple[int, int]]:
    """Return the pairs of rows of unit features `[N, D]` with at least this cosine, computed in blocks of rows."""
    pairs: list[tuple[int, int]] = []
    for first in range(0, len(features), ROWS):
        near = (features[first : first + ROWS] @ features.T >= cosine).nonzero()
        pairs += [(first + row, column) for row, column in near.tolist() if column > first + row]
    return pairs
