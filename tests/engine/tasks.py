"""Small tasks made by hand, and what fits them."""

from functools import partial

import numpy as np
import torch
from PIL import Image

from clipadapt.adaptations.context import Context
from clipadapt.adaptations.features import FeatureAdapter
from clipadapt.data.tasks import Split, Task
from clipadapt.engine import Settings
from clipadapt.engine.fit import TrainState
from clipadapt.engine.preparing import prepare_run
from clipadapt.engine.schedules import cosine
from clipadapt.objectives import CrossEntropy

SGD = partial(torch.optim.SGD, lr=0.002, momentum=0.9)
CONTEXT = partial(Context, n_ctx=4)
FEATURES = partial(FeatureAdapter, reduction=4)


def split(labels, seed=0):
    random = np.random.default_rng(seed)
    pictures = [random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in labels]
    return Split([Image.fromarray(picture) for picture in pictures], list(labels))


def task(images=7, views=0, tests=None):
    return Task(
        name="noise",
        class_names=["circle", "square", "star"],
        templates=["a photo of a {}."],
        shots=2,
        seed=1,
        views=views,
        support=split([index % 3 for index in range(images)]),
        validation=split([]),
        tests={"test": split([0, 1, 2, 0, 1], seed=1)} if tests is None else tests,
        support_indices=list(range(images)),
        validation_indices=[],
    )


def settings(**changes):
    plain = {"epochs": 3, "optimizer": SGD, "schedule": cosine, "batch_size": 4, "cpu": True, "workers": 0}
    return Settings(**plain | changes)


def prepare(clip, given=None, make=CONTEXT, **changes):
    return prepare_run(clip, given or task(), make, settings(**changes))


def fit(run, objective=None, progress=None, after_epoch=lambda progress: None):
    """What was learned, and the progress."""
    done = run.fit(objective or CrossEntropy(run.clip, run.known), run.support(), progress or TrainState(), after_epoch)
    return {name: value.clone() for name, value in run.head.adaptation.state_dict().items()}, done


def learned(clip, given=None, make=FEATURES, **changes):
    return fit(prepare(clip, given, make, **changes))[0]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def distance(left, right):
    return max((left[name] - right[name]).abs().max().item() for name in left)
