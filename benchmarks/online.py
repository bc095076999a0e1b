"""DPE's step on test images of a stream, against a plain version of the published procedure.

    python -m benchmarks.online --classes 1000 --images 8

Both sides go from the unit features of an image's views, random ones near random class embeddings, to its logits: the
cache, a step on the residues of both prototypes, the answer, and the class embeddings of later images. Every class has
its images in the cache, as after a long stream. The image tower, the same for both sides, isn't in either; `--tower`
measures it besides, so that its share of the whole is known.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import command, measure
from benchmarks.operations import Work
from benchmarks.plain_stream import PrototypeStream
from benchmarks.prompts import relative_difference
from benchmarks.report import COMPARISON, Row, difference_text, report
from clipadapt.adaptations import ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import Cache, DualPrototypes

SETTINGS: dict[str, Any] = {
    "selection": 0.1,
    "text_lr": 6e-4,
    "image_lr": 6e-4,
    "align_weight": 0.5,
    "align_temperature": 0.01,
    "threshold": 0.1,
}
CACHE: dict[str, Any] = {"capacity": 3, "alpha": 6.0, "beta": 5.0}
NEAR = 2.0
"""Length of the random part of a feature, whose class embedding has length one."""


def near(text: Tensor, labels: Tensor) -> Tensor:
    """Return random unit features `[..., D]` near the embeddings `[C, D]` of classes `[...]`."""
    found = text[labels]
    return functional.normalize(found + NEAR * functional.normalize(torch.randn(found.shape), dim=-1), dim=-1)


def fill(ours: DualPrototypes, plain: PrototypeStream, text: Tensor) -> None:
    """Put the same images of every class into both caches."""
    labels = torch.arange(len(text))[:, None].expand(-1, CACHE["capacity"])
    keys, entropies = near(text, labels), torch.rand(labels.shape).sort(dim=-1).values
    device = plain.text.device
    entries = {"entropy": entropies, "position": torch.zeros_like(labels), "key": keys}
    ours.cache.load({name: values.to(device).clone() for name, values in entries.items()})
    for label, (some, own) in enumerate(zip(keys.to(device), entropies.tolist(), strict=True)):
        plain.cached[label] = [(feature[None], entropy) for feature, entropy in zip(some, own, strict=True)]


def streams(
    clip: CLIP, names: Sequence[str], views: int
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]:
    """Return functions from features `[V, D]` to logits `[C]` of both sides at one state, and the class embeddings."""
    torch.manual_seed(0)
    classifier = Classifier(clip, ZeroShot(clip, command.task(names)).to(clip.device), names)
    text = functional.normalize(torch.randn(len(names), clip.width), dim=-1)
    ours = DualPrototypes(Cache(**CACHE), views, 1, **SETTINGS)
    plain = PrototypeStream(text.to(clip.device), clip.scale, SETTINGS, CACHE)
    fill(ours, plain, text)

    @torch.no_grad()
    def step(features: Tensor) -> Tensor:
        return ours.step(classifier, features, plain_text)["logits"]

    plain_text = text.to(clip.device)
    return step, plain.answer, text


def repeated(side: Callable[[Tensor], Tensor], features: Sequence[Tensor], images: int) -> Callable[[], object]:
    """Return a function that adapts to the next images of a stream, which begins again when it is over."""
    stream: Iterator[Tensor] = cycle(features)
    return lambda: [side(next(stream)) for _ in range(images)]


def needed(classes: int, width: int, views: int, images: int) -> list[Work]:
    """Return the least work: products of views and class embeddings, and those of the alignment with its gradients."""
    kept = max(1, int(views * SETTINGS["selection"]))
    seen = (views + kept + 1) * classes * width  # all views, the gradient of those that count, and the answer
    return [
        Work(images * seen, views, width),
        Work(images * 3 * classes**2 * width, classes, width),
    ]


def measure_one(clip: CLIP, classes: int, chosen: argparse.Namespace) -> Row:
    """Measure both sides with this number of classes."""
    ours, plain, text = streams(clip, command.class_names(classes), chosen.views)
    labels = torch.randint(classes, (chosen.images * (chosen.repeats + 2),))
    features = [near(text, label.expand(chosen.views)).to(clip.device) for label in labels]
    pairs = [(ours(one), plain(one)) for one in features[: chosen.images]]
    difference = max(relative_difference(*pair) for pair in pairs)
    sides = {"ours": repeated(ours, features, chosen.images), "plain": repeated(plain, features, chosen.images)}
    if chosen.tower:
        pixels = command.pixels(clip, chosen.views)
        sides["tower"] = lambda: encode(clip, pixels)
    compared = measure.compare(sides, needed(classes, clip.width, chosen.views, chosen.images), clip, chosen.repeats)
    size = {"classes": classes, "views": chosen.views, "images": chosen.images}
    return {**size, **compared, "scaled": None, "difference": difference}


@torch.no_grad()
def encode(clip: CLIP, pixels: Tensor) -> Tensor:
    """Return the features `[V, D]` of an image's views."""
    with command.autocast(clip):
        return clip.model.encode_image(pixels)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all numbers of classes, print and write."""
    parser = command.parser(__doc__)
    command.add_repeats(parser)
    parser.add_argument("--classes", type=int, nargs="+", default=[1000])
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--images", type=int, default=8, help="images of the stream that are timed together")
    parser.add_argument("--tower", action="store_true", help="also time the image tower on the views of one image")
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
    report("DPE along a stream", chosen, columns, rows)


if __name__ == "__main__":
    main()
