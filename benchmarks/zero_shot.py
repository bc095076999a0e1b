"""Class weights of OpenAI's 80 templates, against 77 tokens per prompt.

    python -m benchmarks.zero_shot --classes 50

Both sides go from class names to class weights: tokens, tower, mean. Nothing is learned.
"""

import argparse
from collections.abc import Sequence

import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor

from benchmarks import command, measure, operations, plain
from benchmarks.prompts import relative_difference
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.tasks.classification import Classifier


@torch.no_grad()
def our_weights(clip: CLIP, templates: list[str], names: list[str]) -> Tensor:
    """Return class weights `[C, D]` as the library computes them."""
    return Classifier(clip, ZeroShot(clip, command.task(names), templates), names).class_embeddings()


def measure_one(clip: CLIP, templates: list[str], classes: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides with this number of classes; the plain one with fewer if it would take long."""
    measured = min(classes, chosen.plain_classes)
    names = command.class_names(classes)
    sides = {
        "ours": lambda: our_weights(clip, templates, names),
        "plain": lambda: plain.ensemble(clip, templates, names[:measured]),
    }
    work = operations.text(clip, ZeroShot(clip, command.task(names), templates), names, gradient=False)
    difference = relative_difference(sides["ours"](), sides["plain"]()) if measured == classes else None
    compared = measure.compare(sides, [work], clip, chosen.repeats, classes / measured)
    size = {"classes": classes, "templates": len(templates)}
    return {**size, **compared, "scaled": command.scaled(measured, classes), "difference": difference}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all numbers of classes, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    command.add_classes(parser, [50], plain=50)
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    templates = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    columns = {
        "classes": lambda row: f"{row['classes']:,}",
        "templates": lambda row: str(row["templates"]),
        **COMPARISON,
        "difference of class weights": difference_text,
    }
    rows = (measure_one(clip, templates, classes, chosen) for classes in chosen.classes)
    report("Class weights of an ensemble of templates", chosen, columns, rows)


if __name__ == "__main__":
    main()
