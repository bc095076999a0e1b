"""A finished run of the demo: its predictor, and the images that it learned from, as far as they are still there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from clipadapt.data import Task
from clipadapt.errors import DataError, UserError
from clipadapt.explain import attention_rollout
from clipadapt.report.explained import attention_picture
from clipadapt.runs.artifact import is_artifact
from clipadapt.runs.learned import load_predictor
from clipadapt.runs.near_duplicates import encode
from clipadapt.runs.own_task import learned_task
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.result import read_result

NEAREST, KEPT_CLASSES = 3, 8
"""Images that are shown beside an image, and how many lists of class names stay encoded."""

WHY_NOT_SHOWN = {"batch": "adapts to batches of images", "set": "answers the images of a whole set together"}
"""Why the demo doesn't show a method, by what it adapts to."""


@dataclass(frozen=True)
class NearImage:
    """An image that a run learned from.

    Attributes:
        image: the image.
        label: its class.
        cosine: of its frozen features with those of another image.
    """

    image: Image.Image
    label: str
    cosine: float


class ShownRun:
    """A run of the demo.

    Args:
        title: of the run.
        predictor: of the run.
        task: what it learned from; None where that isn't there.
        note: why it isn't there.
    """

    def __init__(self, title: str, predictor: Predictor, task: Task | None = None, note: str = "") -> None:
        self.title, self.predictor, self.task, self.note = title, predictor, task, note
        self.for_classes = lru_cache(KEPT_CLASSES)(self._for_classes)

    def _for_classes(self, names: tuple[str, ...]) -> tuple[Predictor, Tensor | None]:
        """Return the predictor for class names, none for the run's own, and its class embeddings."""
        predictor = self.predictor.for_classes(names) if names else self.predictor
        return predictor, predictor.class_embeddings()

    def probabilities(self, picture: str, names: Sequence[str]) -> list[tuple[str, float]]:
        """Return the classes of an image with their probabilities, the most probable first.

        Args:
            picture: the image's file.
            names: class names in place of the run's; none for those.

        Raises:
            UserError: what was learned belongs to the run's classes, or as of `Predictor.answers`.
        """
        predictor, text = self.for_classes(tuple(names))
        predictor.reset(length=1)  # what others dropped here before shall not change the answer
        (row,) = predictor.answers_to([predictor.read(picture)], text)
        values, order = row.sort(descending=True, stable=True)
        return [(predictor.class_names[k], value) for k, value in zip(order.tolist(), values.tolist(), strict=True)]

    def attention(self, picture: str) -> Image.Image:
        """Return an image as the model sees it, with where it looks; raises UserError where that isn't known."""
        clip, seen = self.predictor.model.clip, self.predictor.preprocess(picture)
        (heat,) = attention_rollout(self.predictor.model, seen[None].to(clip.device, clip.dtype))
        return attention_picture(self.predictor.picture(seen), heat.cpu().numpy())

    def nearest(self, picture: str) -> list[NearImage]:
        """Return the images learned from whose frozen features have the largest cosine with an image's.

        Raises:
            UserError: they aren't there any more.
        """
        if self.task is None:
            raise DataError(self.note)
        places, features = self._learned
        clip, support = self.predictor.model.clip, self.task.support
        with torch.no_grad():
            pixels = self.predictor.preprocess(picture)[None].to(clip.device, clip.dtype)
            cosines = normalize(clip.image.run(pixels).float(), dim=-1).cpu() @ features.T
        found = zip(*(one[0].tolist() for one in cosines.topk(min(NEAREST, len(places)))), strict=True)
        return [
            NearImage(support.images[places[k]], self.task.class_names[support.labels[places[k]]], cosine)
            for cosine, k in found
        ]

    @cached_property
    def _learned(self) -> tuple[list[int], Tensor]:
        """Return the indices of the support images that can be read, and their unit features `[N, D]`."""
        assert self.task is not None
        wanted = [("", index) for index in range(len(self.task.support))]
        kept, features = encode(self.predictor.model.clip, {"": self.task.support}, wanted, lambda count: None)
        return [index for _, index in kept], features


def load_runs(directories: Sequence[Path], config_dir: str | Path | None = None) -> list[ShownRun]:
    """Load the runs of a demo.

    Args:
        directories: of runs or artifacts.
        config_dir: a folder of the user's own with modules that the runs may name.

    Raises:
        UserError: no finished run is there, or one answers with no classes, or only to whole sets of images.
    """
    runs = [load_run(directory, config_dir) for directory in directories]
    titles = [run.title for run in runs]
    for run, directory in zip(runs, directories, strict=True):
        same = {other for other, title in zip(directories, titles, strict=True) if title == run.title}
        run.title += f" ({directory.name})" if len(same) > 1 else ""
    return runs


def load_run(directory: Path, config_dir: str | Path | None) -> ShownRun:
    """Load a run of a demo, with the images that it learned from if they are there; arguments as of `load_runs`."""
    predictor, result = load_predictor(directory, config_dir=config_dir), read_result(directory)
    if not predictor.kind.probabilities:
        raise UserError(f"{directory} answers with no classes, and the demo shows classes alone")
    why = None if predictor.test_time is None else WHY_NOT_SHOWN.get(predictor.test_time.adapts_to)
    if why is not None:
        raise UserError(f"{directory} {why}, and the demo shows single ones")
    title = f"{result.config['method']['name']} on {result.record['task']}"
    if is_artifact(directory):
        return ShownRun(title, predictor, note="The images that were learned from aren't in what is shown here.")
    try:
        task = learned_task(directory, config_dir)
    except UserError as error:
        return ShownRun(title, predictor, note=f"The images that were learned from can't be shown: {error}")
    shown = len(task.support) and task.support.labelled
    return ShownRun(title, predictor, task if shown else None, "This run learned from no images with classes.")
