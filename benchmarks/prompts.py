"""One training step of the text side: packed rows against 77 tokens a class, side by side.

    python benchmarks/prompts.py --classes 50 --n-ctx 16

CoOp's learned context on a text tower with random weights, ImageNet's class names, float32. The plain side is the
published procedure: every class's 77 tokens through the whole tower at every step. Both sides are checked against each
other, then timed in turn; what is printed and written as JSON is the median of the repeats and their ratio.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor
from torch.nn import functional

from clipadapt.adaptations import Context
from clipadapt.backbone.clip import CLIP
from clipadapt.classifier import Classifier

LENGTH = 77


def plain_class_weights(clip: CLIP, context: Tensor, names: list[str]) -> Tensor:
    """Class weights `[C, D]` of prompts "<context> name.", every class with all its 77 tokens."""
    model, tokenizer = clip.model, clip.tokenizer
    placeholder = [tokenizer.placeholder] * len(context)
    rows = [
        tokenizer.start + placeholder + tokenizer.encode(name) + tokenizer.encode(".") + tokenizer.end for name in names
    ]
    ids = torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])
    words = model.token_embedding(ids)
    shared = context.expand(len(names), -1, -1)
    x = torch.cat([words[:, :1], shared, words[:, 1 + len(context) :]], dim=1) + model.positional_embedding
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    return functional.normalize(x[torch.arange(len(names)), ids.argmax(dim=1)] @ model.text_projection, dim=-1)


def step(class_weights: Callable[[], Tensor], context: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross entropy of one batch with respect to the context."""
    logits = 100 * images @ class_weights().T
    return torch.autograd.grad(functional.cross_entropy(logits, labels), context)[0]


def main() -> None:
    """Check, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--n-ctx", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    clip = CLIP.load(chosen.backbone, None)
    names = IMAGENET_CLASSNAMES[: chosen.classes]
    context = Context(clip, SimpleNamespace(class_names=names, templates=["{}"]), n_ctx=chosen.n_ctx)
    classifier = Classifier(clip, context, names)
    images = functional.normalize(torch.randn(32, clip.width), dim=-1)
    labels = torch.randint(len(names), (32,))
    sides = {
        "plain": lambda: step(
            lambda: plain_class_weights(clip, context.context, names), context.context, images, labels
        ),
        "rows": lambda: step(classifier.class_weights, context.context, images, labels),
    }
    gradients = {name: side() for name, side in sides.items()}
    difference = (gradients["plain"] - gradients["rows"]).abs().max() / gradients["plain"].abs().max()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(chosen.repeats):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    found = {
        "backbone": chosen.backbone,
        "classes": len(names),
        "n_ctx": chosen.n_ctx,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "relative difference of gradients": float(difference),
        "seconds": medians,
        "times faster": medians["plain"] / medians["rows"],
    }
    print(json.dumps(found, indent=2))
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
