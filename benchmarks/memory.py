"""Peak memory of one training step of the text side, against the number of classes.

    python -m benchmarks.memory --classes 50 200 1000

    python -m benchmarks.memory --classes 20000 --gigabytes 8

The step is that of benchmarks.prompts with a shared context. Memory is what torch allocates beyond its memory before
the step. With --gigabytes our side runs the tower in chunks that should take at most that much.
"""

import argparse
from collections.abc import Sequence

from benchmarks import command, measure
from benchmarks.prompts import BATCH, our_step, plain_step
from benchmarks.report import Row, plain_text, report
from clipadapt.backbone.open_clip import CLIP


def measure_one(clip: CLIP, classes: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides with this number of classes; the plain side with fewer if they wouldn't fit."""
    measured = min(classes, chosen.plain_classes)
    names = command.class_names(classes)
    step = our_step(clip, "shared", names, chosen.n_ctx, BATCH, chosen.gigabytes)
    ours = measure.peak_bytes(step, clip.device)
    theirs = measure.peak_bytes(plain_step(clip, "shared", names[:measured], chosen.n_ctx, BATCH), clip.device)
    return {
        "classes": classes,
        "ours_bytes": ours,
        "plain_bytes": theirs * classes / measured,
        "plain_measured_bytes": theirs,
        "ratio": theirs * classes / measured / ours,
        "scaled": command.scaled(measured, classes),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all numbers of classes, print and write."""
    parser = command.parser(__doc__)
    command.add_classes(parser, [50, 100, 200, 1000], plain=200)
    parser.add_argument("--n-ctx", type=int, default=16)
    parser.add_argument(
        "--gigabytes",
        type=float,
        help="run our side in chunks that take at most this much; without it all classes at once",
    )
    chosen = parser.parse_args(argv)
    clip = command.load(chosen)
    columns = {
        "classes": lambda row: f"{row['classes']:,}",
        "ours": lambda row: f"{row['ours_bytes'] / 1e6:,.0f} MB",
        "plain": lambda row: plain_text(f"{row['plain_bytes'] / 1e6:,.0f} MB", row),
        "plain / ours": lambda row: f"{row['ratio']:.3g}",
    }
    rows = (measure_one(clip, classes, chosen) for classes in chosen.classes)
    report("Peak memory of one training step of the text side", chosen, columns, rows)


if __name__ == "__main__":
    main()
