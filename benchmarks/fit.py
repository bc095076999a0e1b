"""Whole trainings through the public API, against a plain loop that runs both towers at every step.

    python -m benchmarks.fit --methods coop --shots 16 --classes 20 --epochs 50
    python -m benchmarks.fit --methods coop --epochs 200 --views 8 --kept     the default for images of one's own

CoOp and CLIP-Adapter on drawn images in memory; without augmentation, or with stored views. Evaluation is not measured.
Our side is a call of `finetune` less the same call with no epochs, which only prepares and evaluates; the difference is
the time to transform and encode the images, and all steps. The plain side is one whole step on a transformed batch,
times the number of steps. With `--kept`, the first run, which encodes the images, has a row of its own, before those
that find them encoded.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import clipadapt
from benchmarks import command, measure, operations, pictures, plain
from benchmarks.operations import Work
from benchmarks.report import COMPARISON, Row, report
from clipadapt.adaptations import Context, ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.data import Source, Split, Task, make_task
from clipadapt.features.encoder import MICRO_BATCH
from clipadapt.runs.result import Result

METHODS = ("coop", "clip_adapter")
ADAPTER_EPOCHS = 200
"""CLIP-Adapter's default at 16 shots (conf/method/clip_adapter.yaml)."""
TEMPLATE = "a photo of a {}."
N_CTX = 16
BATCH = 32


def draw_task(classes: int, shots: int, views: int) -> Task:
    """Return a task of meaningless drawn images: `shots` per class to learn from and one per class to test on."""
    labels = [label for label in range(classes) for _ in range(shots)]
    train = Split([pictures.draw(seed) for seed in range(len(labels))], labels)
    test = train.select(range(0, len(labels), shots))
    names = command.class_names(classes)
    return make_task(
        Source("drawn", names, [TEMPLATE], train, Split([], []), {"test": test}), shots, seed=1, views=views
    )


def finetune(clip: CLIP, task: Task, method: str, epochs: int, cache: str | None) -> Result:
    """Run our side; without a feature cache if `cache` is None."""
    precision = next(name for name, dtype in command.DTYPES.items() if dtype == clip.dtype)
    cpu = clip.device.type == "cpu"
    return clipadapt.finetune(clip, task, method, epochs=epochs, precision=precision, cpu=cpu, cache=cache)


def plain_step(clip: CLIP, task: Task, method: str) -> Callable[[], Tensor]:
    """Return one whole step of the published procedure on a batch in memory."""
    if method == "coop":
        model = plain.CoOp(clip, task.class_names, N_CTX)
    else:
        model = plain.Adapter(clip, task.class_names, TEMPLATE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9, weight_decay=0.0005)
    images = [task.support[index] for index in range(min(BATCH, len(task.support)))]
    pixels = torch.stack([clip.transform(image) for image, _ in images]).to(clip.device, clip.dtype)
    labels = torch.tensor([label for _, label in images], device=clip.device)

    def step() -> Tensor:
        with command.autocast(clip):
            return plain.training_step(model, optimizer, pixels, labels)

    return step


def needed(clip: CLIP, task: Task, method: str, steps: float) -> list[Work]:
    """Return the least work: each view through the tower once, and class weights at every step or, if frozen, once."""
    count, names = len(task.support) * max(1, task.views or 0), task.class_names
    images = operations.image(clip, count, at_once=MICRO_BATCH)
    given = command.task(names, TEMPLATE)
    if method == "coop":
        return [images, operations.text(clip, Context(clip, given, N_CTX), names, gradient=True).times(steps)]
    return [images, operations.text(clip, ZeroShot(clip, given), names, gradient=False)]


def fitting_seconds(seconds: Mapping[str, list[float]]) -> list[float]:
    """Return the seconds of a run without preparation and evaluation."""
    return [whole - rest for whole, rest in zip(seconds["whole"], seconds["rest"], strict=True)]


def measure_one(clip: CLIP, task: Task, method: str, chosen: argparse.Namespace, cache: str | None) -> list[Row]:
    """Measure both sides of one method; the first round, which isn't counted, fills the cache.

    Where there is a cache, a row before the others is that first round's.
    """
    epochs = chosen.epochs if method == "coop" else ADAPTER_EPOCHS
    fit_seconds, whole_seconds = [], []

    def whole() -> None:
        began = time.perf_counter()
        fit_seconds.append(finetune(clip, task, method, epochs, cache).metrics["fit_seconds"])
        whole_seconds.append(time.perf_counter() - began)

    sides = {
        "whole": whole,
        "rest": lambda: finetune(clip, task, method, 0, cache),
        "plain": plain_step(clip, task, method),
    }
    count = len(task.support)
    steps = epochs * count / min(BATCH, count)  # an epoch's last batch counts by its share
    compared = measure.compare(
        sides, needed(clip, task, method, steps), clip, chosen.repeats, factor=steps, ours=fitting_seconds
    )
    size = {
        "method": method,
        "images": count,
        "views": task.views,
        "epochs": epochs,
        "steps": steps,
        "kept": cache is not None,
    }
    row = {**size, **compared, "fit_seconds": fit_seconds[1:], "scaled": "one step"}
    if cache is None:
        return [row]
    first = whole_seconds[0] - compared["median_seconds"]["rest"]
    changed = {
        "ours_seconds": first,
        "ratio": row["plain_seconds"] / first,
        "floor_share": row["floor_seconds"] / first,
    }
    return [{**row, **changed, "kept": False}, row]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the methods, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=50, help=f"epochs of CoOp; CLIP-Adapter has {ADAPTER_EPOCHS}")
    parser.add_argument("--views", type=int, default=0, help="stored views of each image; 0 is the centre crop")
    parser.add_argument("--kept", action="store_true", help="keep what the first run encodes for the others")
    chosen = parser.parse_args(argv)
    clip, task = command.load(chosen), draw_task(chosen.classes, chosen.shots, chosen.views)
    columns = {
        "method": lambda row: row["method"],
        "images": lambda row: f"{row['images']:,}",
        "views": lambda row: str(row["views"]),
        "kept": lambda row: "yes" if row["kept"] else "no",
        "steps": lambda row: f"{row['steps']:,.0f}",
        **COMPARISON,
    }
    with tempfile.TemporaryDirectory() as folder:
        cache = folder if chosen.kept else None
        rows = (row for method in chosen.methods for row in measure_one(clip, task, method, chosen, cache))
        report("Whole trainings, evaluation excluded", chosen, columns, rows)


if __name__ == "__main__":
    main()
