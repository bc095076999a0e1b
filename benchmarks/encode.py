"""Frozen encoding of a folder of JPEGs, against the tower alone on tensors in memory.

    python -m benchmarks.encode --images 128 --workers 2

Both sides take the same images in the same batches. Decoding alone is reading, decoding and transforming with the same
number of worker processes. The files are in the system's page cache; no feature cache is read or written.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import command, measure, operations, pictures
from benchmarks.prompts import relative_difference
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.data import LazyImages, Split, open_image
from clipadapt.data.transforms import CentreCrop
from clipadapt.features.encoder import MICRO_BATCH, AugmentedDataset, Encoder
from clipadapt.tasks.classification import Classifier

QUALITY = 90


def draw_folder(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of ImageNet's usual size, in portrait and landscape format."""
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        size = (500, 375) if i % 2 else (375, 500)
        pictures.draw(i, *size).save(path, quality=QUALITY)
    return paths


def our_features(classifier: Classifier, images: Split, workers: int) -> Tensor:
    """Return features `[N, D]` as a run without a feature cache computes them."""
    clip = classifier.clip
    views = AugmentedDataset(images, CentreCrop(clip.transform))
    return torch.cat(list(Encoder(classifier, workers).compute(views, [(i, 0) for i in range(len(images))])))


def decode(clip: CLIP, images: Split, workers: int) -> list[Tensor]:
    """Return the pixels `[B, 3, height, width]` of all images, in the batches of the encoder."""
    indices = range(len(images))
    batches = [indices[first : first + MICRO_BATCH] for first in indices[::MICRO_BATCH]]
    return [torch.stack(read) for read in AugmentedDataset(images, CentreCrop(clip.transform)).read(batches, workers)]


@torch.no_grad()
def bare_features(clip: CLIP, batches: Sequence[Tensor]) -> Tensor:
    """Return features `[N, D]` of the tower alone."""
    return torch.cat([clip.model.encode_image(pixels) for pixels in batches])


def measure_folder(clip: CLIP, paths: Sequence[Path], chosen: argparse.Namespace) -> Row:
    """Measure encoding the folder, the tower alone, and decoding alone."""
    images = Split(LazyImages(paths, open_image), [0] * len(paths))
    names = command.class_names(2)
    classifier = Classifier(clip, ZeroShot(clip, command.task(names)), names)
    in_memory = [pixels.to(clip.device, clip.dtype) for pixels in decode(clip, images, chosen.workers)]
    sides = {
        "ours": lambda: our_features(classifier, images, chosen.workers),
        "plain": lambda: bare_features(clip, in_memory),
        "decoding": lambda: decode(clip, images, chosen.workers),
    }
    difference = relative_difference(sides["ours"](), sides["plain"]())
    work = operations.image(clip, len(paths), at_once=MICRO_BATCH)
    compared = measure.compare(sides, [work], clip, chosen.repeats)
    sizes = {"images": len(paths), "mean_bytes": sum(path.stat().st_size for path in paths) / len(paths)}
    return {**sizes, **compared, **speeds(len(paths), compared), "scaled": None, "difference": difference}


def speeds(count: int, compared: Row) -> Row:
    """Return images per second, and the share of the tower's speed that decoding allows."""
    decoding = compared["median_seconds"]["decoding"]
    return {
        "ours_per_second": count / compared["ours_seconds"],
        "plain_per_second": count / compared["plain_seconds"],
        "decoding_per_second": count / decoding,
        "decoding_allows": min(1.0, compared["plain_seconds"] / decoding),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the folder, measure, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2, help="processes that read and decode")
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    columns = {
        "images/s: ours": lambda row: f"{row['ours_per_second']:.4g}",
        "bare tower": lambda row: f"{row['plain_per_second']:.4g}",
        "ours / tower": lambda row: f"{100 * row['ratio']:.0f} %",
        "decoding": lambda row: f"{row['decoding_per_second']:.4g}",
        "decoding allows": lambda row: f"{100 * row['decoding_allows']:.0f} % of the tower",
        **{name: COMPARISON[name] for name in ("floor", "floor / ours")},
        "difference": difference_text,
    }
    with tempfile.TemporaryDirectory() as folder:
        row = measure_folder(clip, draw_folder(Path(folder), chosen.images), chosen)
    report("Frozen encoding of a folder of JPEGs", chosen, columns, [row])


if __name__ == "__main__":
    main()
