"""TPT, R-TPT and TPS on test images, against the published procedure for one image after another.

    python -m benchmarks.test_time --classes 200 --images 2 --methods rtpt tps

Both sides go from an image's views, random pixels in memory, to its logits: all views through the image tower, one step
of a context of four vectors, or of a shift of prototypes, on the most confident views, and the class weights again. The
published side has prompts of 77 tokens, and its image tower runs in every forward pass. The class weights that every
image starts from are computed once per test set, and are not measured.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import command, measure, operations, plain, plain_tuning
from benchmarks.operations import Work
from benchmarks.prompts import relative_difference
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import Adaptation, Context, PrototypeShift
from clipadapt.backbone.open_clip import CLIP
from clipadapt.engine.memory import max_rows
from clipadapt.features.memory import budget
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import PromptTuning, ReliabilityTuning
from clipadapt.test_time.episodic import EpisodicTuning

N_CTX, SELECTION, LR, NEIGHBOURS = 4, 0.1, 0.005, 20


@dataclass(frozen=True)
class Method:
    """A method, on both sides.

    Attributes:
        adaptation: makes what every image starts from.
        tuning: our side; the arguments are the numbers of views and of images.
        plain: the published procedure: logits `[C]` of views, given the backbone, class names and views.
        again: number of views that go through the plain side's image tower again, after the step; None for all.
        text: whether the class weights need the text tower at every image.
    """

    adaptation: Callable[[CLIP, Sequence[str]], Adaptation]
    tuning: Callable[[int, int], EpisodicTuning]
    plain: Callable[[CLIP, Sequence[str], Tensor], Callable[[], Tensor]]
    again: int | None = 1
    text: bool = True


def context(clip: CLIP, names: Sequence[str]) -> Context:
    """Return the context that every image starts from."""
    torch.manual_seed(0)
    return Context(clip, command.task(names), N_CTX).to(clip.device)


def shift(clip: CLIP, names: Sequence[str]) -> PrototypeShift:
    """Return the shift that every image starts from."""
    return PrototypeShift(clip, command.task(names)).to(clip.device)


def our_logits(
    method: Method, clip: CLIP, names: Sequence[str], pixels: Tensor, gigabytes: float | None = None
) -> Callable[[], Tensor]:
    """Return a function for the library's logits `[B, C]` of all images; in chunks that take at most `gigabytes`."""
    made = method.adaptation(clip, names)
    memory = budget(gigabytes, clip.device, 1) / len(pixels)
    classifier = Classifier(clip, made, names, max_rows(clip, made, names, memory, 1, 1))
    tuning = method.tuning(pixels.shape[1], len(pixels))

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


def in_precision(clip: CLIP, function: Callable[..., Tensor], *given: object) -> Tensor:
    """Call a function in the number format of a run of this precision."""
    with command.autocast(clip):
        return function(*given)


def plain_context(tune: Callable[[plain.CoOp, Tensor, Tensor], Tensor]) -> Callable[..., Callable[[], Tensor]]:
    """Return the published side of a method that tunes a context."""

    def make(clip: CLIP, names: Sequence[str], views: Tensor) -> Callable[[], Tensor]:
        model, start = plain.CoOp(clip, names, N_CTX), context(clip, names).context.detach()
        return lambda: in_precision(clip, tune, model, start, views)

    return make


def plain_shift(clip: CLIP, names: Sequence[str], views: Tensor) -> Callable[[], Tensor]:
    """Return the published side of TPS, whose prototypes are given."""
    with torch.no_grad():
        prototypes = Classifier(clip, shift(clip, names), names).class_embeddings().float()
    return lambda: in_precision(clip, plain_tuning.tps, clip, prototypes, views, SELECTION, LR)


METHODS = {
    "tpt": Method(
        context,
        lambda views, images: PromptTuning(views, images, SELECTION, lr=LR),
        plain_context(lambda *given: plain_tuning.tpt(*given, SELECTION, LR)),
    ),
    "rtpt": Method(
        context,
        lambda views, images: ReliabilityTuning(views, images, SELECTION, lr=LR, neighbours=NEIGHBOURS),
        plain_context(lambda *given: plain_tuning.rtpt(*given, SELECTION, LR, NEIGHBOURS)),
        again=None,
    ),
    "tps": Method(
        shift,
        lambda views, images: PromptTuning(views, images, SELECTION, lr=LR, select_every_step=True),
        plain_shift,
        text=False,
    ),
}


def tower(clip: CLIP, views: Tensor, again: int | None) -> Callable[[], object]:
    """Return the part of the published procedure that doesn't depend on the number of classes."""

    @torch.no_grad()
    def run() -> None:
        with command.autocast(clip):
            clip.model.encode_image(views)
            clip.model.encode_image(views[:again])

    return run


def needed(method: Method, clip: CLIP, names: Sequence[str], images: int, views: int) -> list[Work]:
    """Return the least work: all views through the image tower; per image, class weights with and without gradient."""
    made, image = method.adaptation(clip, names), operations.image(clip, images * views, at_once=views)
    passes = (True, False) if method.text else ()
    return [image, *(operations.text(clip, made, names, gradient, images) for gradient in passes)]


def measure_one(name: str, clip: CLIP, classes: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides with this number of classes; the plain one with one image, and if need be fewer classes."""
    method = METHODS[name]
    measured = min(classes, chosen.plain_classes) if method.text else classes
    names, pixels = command.class_names(classes), command.pixels(clip, chosen.images, chosen.views)
    ours = our_logits(method, clip, names, pixels, chosen.gigabytes)
    theirs = method.plain(clip, names[:measured], pixels[0])
    difference = relative_difference(ours()[0], theirs()) if measured == classes else None
    sides = {"ours": ours, "plain": theirs, "tower": tower(clip, pixels[0], method.again)}
    works = needed(method, clip, names, chosen.images, chosen.views)
    compared = measure.compare(sides, works, clip, chosen.repeats, factor=chosen.images)
    size = {"method": name, "classes": classes, "views": chosen.views, "images": chosen.images}
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
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=8, help="images that our side tunes to together")
    parser.add_argument(
        "--gigabytes", type=float, help="memory that our text side may take; without it, half of the free memory"
    )
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    columns = {
        "method": lambda row: row["method"],
        "classes": lambda row: f"{row['classes']:,}",
        "views": lambda row: str(row["views"]),
        "images": lambda row: str(row["images"]),
        **COMPARISON,
        "difference of logits": difference_text,
    }
    rows = (measure_one(name, clip, classes, chosen) for name in chosen.methods for classes in chosen.classes)
    report("Tuning at test time", chosen, columns, rows)


if __name__ == "__main__":
    main()
