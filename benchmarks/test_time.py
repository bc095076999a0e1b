"""TPT on test images, against 77 tokens per class for one image after another.

    python -m benchmarks.test_time --classes 200 --images 2

Both sides go from an image's views, random pixels in memory, to its logits: all views through the image tower, the
gradient of the entropy of the most confident views with respect to a context of four vectors, one step, and the class
weights again. The class weights that every image starts from are computed once per test set, and are not measured.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import command, measure, operations, plain
from benchmarks.operations import Work
from benchmarks.prompts import relative_difference
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import Context
from clipadapt.backbone.open_clip import CLIP
from clipadapt.engine.memory import max_rows
from clipadapt.features.memory import budget
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import PromptTuning

N_CTX = 4
SELECTION, LR = 0.1, 0.005


def context(clip: CLIP, names: Sequence[str]) -> Context:
    """Return the context that every image starts from."""
    torch.manual_seed(0)
    return Context(clip, command.task(names), N_CTX).to(clip.device)


def our_logits(
    clip: CLIP, names: Sequence[str], pixels: Tensor, gigabytes: float | None = None
) -> Callable[[], Tensor]:
    """Return a function for the library's logits `[B, C]` of all images; in chunks that take at most `gigabytes`."""
    made = context(clip, names)
    memory = budget(gigabytes, clip.device, 1) / len(pixels)
    classifier = Classifier(clip, made, names, max_rows(clip, made, names, memory, 1, 1))
    tuning = PromptTuning(pixels.shape[1], len(pixels), SELECTION, lr=LR)

    @torch.no_grad()
    def weights() -> Tensor:
        with command.autocast(clip):
            return classifier.class_embeddings()

    text = weights()

    @torch.no_grad()
    def logits() -> Tensor:
        with command.autocast(clip):
            x = torch.stack([classifier.prefix(views) for views in pixels])
            return tuning.logits(classifier, x, text)

    return logits


def plain_logits(clip: CLIP, names: Sequence[str], views: Tensor) -> Callable[[], Tensor]:
    """Return a function for the published logits `[C]` of one image."""
    model, start = plain.CoOp(clip, names, N_CTX), context(clip, names).context.detach()

    def logits() -> Tensor:
        with command.autocast(clip):
            return plain.tune_to_image(model, start, views, SELECTION, LR)

    return logits


def tower(clip: CLIP, views: Tensor) -> Callable[[], object]:
    """Return the part of the published procedure that doesn't depend on the number of classes."""

    @torch.no_grad()
    def run() -> None:
        with command.autocast(clip):
            clip.model.encode_image(views)
            clip.model.encode_image(views[:1])

    return run


def needed(clip: CLIP, names: Sequence[str], images: int, views: int) -> list[Work]:
    """Return the least work: all views through the image tower; per image, class weights with and without gradient."""
    made = context(clip, names)
    texts = [operations.text(clip, made, names, gradient, images) for gradient in (True, False)]
    return [operations.image(clip, images * views, at_once=views), *texts]


def measure_one(clip: CLIP, classes: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides with this number of classes; the plain one with one image, and if need be fewer classes."""
    measured = min(classes, chosen.plain_classes)
    names, pixels = command.class_names(classes), command.pixels(clip, chosen.images, chosen.views)
    ours, theirs = our_logits(clip, names, pixels, chosen.gigabytes), plain_logits(clip, names[:measured], pixels[0])
    difference = relative_difference(ours()[0], theirs()) if measured == classes else None
    sides = {"ours": ours, "plain": theirs, "tower": tower(clip, pixels[0])}
    works = needed(clip, names, chosen.images, chosen.views)
    compared = measure.compare(sides, works, clip, chosen.repeats, factor=chosen.images)
    size = {"classes": classes, "views": chosen.views, "images": chosen.images}
    scaled = command.scaled(measured, classes) or ("1 image" if chosen.images > 1 else None)
    return {**size, **for_all_classes(compared, classes / measured), "scaled": scaled, "difference": difference}


def for_all_classes(compared: Row, times: float) -> Row:
    """Scale the plain side to `times` the classes; the image tower's time stays the same."""
    fixed, whole = (compared["median_seconds"][side] for side in ("tower", "plain"))
    seconds = compared["plain_factor"] * (fixed + times * (whole - fixed)) if times > 1 else compared["plain_seconds"]
    return {**compared, "plain_seconds": seconds, "ratio": seconds / compared["ours_seconds"]}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all numbers of classes, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    command.add_classes(parser, [1000], plain=200)
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=8, help="images that our side tunes to together")
    parser.add_argument(
        "--gigabytes", type=float, help="memory that our text side may take; without it, half of the free memory"
    )
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    columns = {
        "classes": lambda row: f"{row['classes']:,}",
        "views": lambda row: str(row["views"]),
        "images": lambda row: str(row["images"]),
        **COMPARISON,
        "difference of logits": difference_text,
    }
    rows = (measure_one(clip, classes, chosen) for classes in chosen.classes)
    report("Prompt tuning at test time", chosen, columns, rows)


if __name__ == "__main__":
    main()
