"""One training step of the text side, against 77 tokens per class through the whole tower.

    python -m benchmarks.prompts --classes 50 --n-ctx 16 --forms shared

A step computes the class weights of CoOp's prompts with ImageNet's class names, the cross entropy of a batch of random
image features, and the gradient of the learned parameters. Forms of context: shared by all classes; one per class; one
per image, shifted by a linear map of its feature. `--tower` adds the image tower's time for the batch: to the plain
side alone (cached features), and to both (fresh views).
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import command, measure, operations, plain
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import ConditionalContext, Context
from clipadapt.backbone.open_clip import CLIP
from clipadapt.engine.memory import max_rows
from clipadapt.tasks.classification import Classifier

FORMS = ("shared", "class-specific", "per-image")
BATCH = 32


def adaptation(clip: CLIP, form: str, names: Sequence[str], n_ctx: int) -> Context:
    """Return the context of a form, the same in every call."""
    torch.manual_seed(0)
    task = command.task(names)
    if form == "per-image":
        return ConditionalContext(clip, task, n_ctx, words=None).to(clip.device)
    return Context(clip, task, n_ctx, class_specific=form == "class-specific").to(clip.device)


def step(
    clip: CLIP, made: Context, class_embeddings: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
) -> Tensor:
    """Return the gradient of a batch's cross entropy with respect to all learned parameters, `[parameters]`."""
    with command.autocast(clip):
        weights = class_embeddings(images)
    loss = functional.cross_entropy(plain.logits(clip, images, weights), labels)
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(made.parameters()))])


def our_step(
    clip: CLIP, form: str, names: Sequence[str], n_ctx: int, images: int, gigabytes: float | None = None
) -> Callable[[], Tensor]:
    """Return the library's step; in chunks if its activations would take more than `gigabytes`."""
    made = adaptation(clip, form, names, n_ctx)
    rows = None if gigabytes is None else max_rows(clip, made, names, 1e9 * gigabytes, images, images)
    classifier = Classifier(clip, made, names, rows)

    def class_embeddings(features: Tensor) -> Tensor:
        return classifier.class_embeddings(features if made.capabilities.conditional else None)

    return partial(step, clip, made, class_embeddings, *batch(clip, images, len(names)))


def plain_step(clip: CLIP, form: str, names: Sequence[str], n_ctx: int, images: int) -> Callable[[], Tensor]:
    """Return the published step, with the same initial context."""
    made = adaptation(clip, form, names, n_ctx)
    ids = plain.context_ids(clip, names, n_ctx)

    def class_embeddings(features: Tensor) -> Tensor:
        if isinstance(made, ConditionalContext):
            contexts = made.context + made.shift(features).unsqueeze(-2)
            return plain.class_weights_per_image(clip, ids, contexts)
        return plain.class_embeddings(clip, ids, made.context)

    return partial(step, clip, made, class_embeddings, *batch(clip, images, len(names)))


def batch(clip: CLIP, count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Return random image features `[count, D]` and labels `[count]`."""
    random = torch.Generator().manual_seed(0)
    features = functional.normalize(torch.randn(count, clip.width, generator=random), dim=-1)
    labels = torch.randint(classes, (count,), generator=random)
    return features.to(clip.device), labels.to(clip.device)


def measure_one(clip: CLIP, form: str, classes: int, n_ctx: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides at one size; the plain side at a smaller one if it wouldn't fit."""
    per_image = form == "per-image"
    images = chosen.images if per_image else BATCH
    most = chosen.plain_classes // images if per_image else chosen.plain_classes
    measured = min(classes, max(1, most))
    names = command.class_names(classes)
    ours = our_step(clip, form, names, n_ctx, images)
    theirs = plain_step(clip, form, names[:measured], n_ctx, images)
    work = operations.text(clip, adaptation(clip, form, names, n_ctx), names, True, images if per_image else 1)
    difference = relative_difference(ours(), theirs()) if measured == classes else None
    sides = {"ours": ours, "plain": theirs, **({"tower": tower(clip, images)} if chosen.tower else {})}
    compared = measure.compare(sides, [work], clip, chosen.repeats, classes / measured)
    size = {"form": form, "classes": classes, "n_ctx": n_ctx, "images": images}
    return {**size, **compared, "scaled": command.scaled(measured, classes), "difference": difference}


def tower(clip: CLIP, images: int) -> Callable[[], Tensor]:
    """Return a pass of a batch of random pixels through the frozen image tower, as open_clip runs it."""
    pixels = command.pixels(clip, images)

    @torch.no_grad()
    def run() -> Tensor:
        with command.autocast(clip):
            return clip.model.encode_image(pixels)

    return run


def with_tower(row: Row, on_ours: bool) -> str:
    """Return the ratio with the image tower on the plain side, or on both sides, as text."""
    seconds = row["median_seconds"].get("tower")
    if seconds is None:
        return "-"
    return f"{(row['plain_seconds'] + seconds) / (row['ours_seconds'] + on_ours * seconds):.3g}"


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all combinations, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    command.add_classes(parser, [50, 200, 1000], plain=200)
    parser.add_argument("--n-ctx", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--forms", choices=FORMS, nargs="+", default=list(FORMS))
    parser.add_argument(
        "--images", type=int, default=8, help="images of the form per-image, to which --plain-classes applies, too"
    )
    parser.add_argument("--tower", action="store_true", help="time the image tower on the batch, too")
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    columns = {
        "context": lambda row: row["form"],
        "classes": lambda row: f"{row['classes']:,}",
        "vectors": lambda row: str(row["n_ctx"]),
        **COMPARISON,
        "plain + tower / ours": partial(with_tower, on_ours=False),
        "with tower on both": partial(with_tower, on_ours=True),
        "difference of gradients": difference_text,
    }
    sizes = product(chosen.forms, chosen.n_ctx, chosen.classes)
    rows = (measure_one(clip, form, classes, n_ctx, chosen) for form, n_ctx, classes in sizes)
    report("One training step of the text side", chosen, columns, rows)


if __name__ == "__main__":
    main()
