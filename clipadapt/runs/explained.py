"""What a finished run looks at and has learned, written into its directory: each part, or a sentence why not."""

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from clipadapt import explain
from clipadapt.data.given_images import find_images
from clipadapt.data.images import open_image
from clipadapt.data.tasks import image_names
from clipadapt.errors import UserError
from clipadapt.explain import NearWord
from clipadapt.files import make_folder, write_atomically
from clipadapt.report import explained as pictures
from clipadapt.runs.artifact import is_artifact
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.learned import load_predictor
from clipadapt.runs.methods import placeholder_task, usual_device
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.reading import EXPLAIN
from clipadapt.tasks import Classifier
from clipadapt.tasks.classification import zero_shot_classifier

WORDS, ATTENTION, WEIGHTS = "words.csv", "attention.png", "class_weights.png"
NamedImages = tuple[list[str], list[Image.Image]]
"""Names of images, and the images."""
NEAREST, SHOWN_CONTEXTS = 3, 1
"""Words beside a vector, and how many contexts the table has; the CSV has all."""


def explain_run(
    directory: Path,
    console: Console,
    images: str | None,
    count: int,
    out: Path | None = None,
    config_dir: str | Path | None = None,
) -> Path:
    """Write the nearest words, the attention and the class weights of a finished run or an artifact; return the folder.

    A part that the run's method doesn't have is told in one sentence.

    Args:
        directory: of the run or the artifact.
        console: where to print.
        images: a file, a folder or a pattern of images to look at; None for the run's test images.
        count: the most images to look at.
        out: the folder to write to; None for one in the run's directory.
        config_dir: a folder of the user's own with modules that the run may name.

    Raises:
        UserError: no finished run or artifact, an artifact without images or a folder to write to, images that can't be
            read, or a run with none of the parts.
    """
    if is_artifact(directory) and (out is None or images is None):
        raise UserError(
            f"{directory} is an artifact, which stays as it is and has no images: say where to write and what to look "
            "at, as in out=explained images=photos"
        )
    given = None if images is None else open_images(images, count)
    predictor, folder = load_predictor(directory, usual_device(), config_dir), out or directory / EXPLAIN
    parts: dict[str, Callable[[], object]] = {
        "Nearest words": partial(write_words, predictor, folder / WORDS, console),
        "Attention": lambda: write_attention(
            predictor, *(given or test_images(directory, count, config_dir)), folder / ATTENTION
        ),
        "Class weights": partial(write_weights, predictor, folder / WEIGHTS),
    }
    problems = []
    for name, write in parts.items():
        try:
            write()
        except UserError as error:
            problems.append(f"{name}: {error}")
    if len(problems) == len(parts):
        raise UserError(f"there is nothing to show of {directory}: {'; '.join(problems)}")
    for text in problems:
        console.print(Text(text), soft_wrap=True)
    return folder


def write_words(predictor: Predictor, path: Path, console: Console) -> None:
    """Print the nearest words of the first context, and write those of all contexts as CSV.

    Raises:
        UserError: the method has no context vectors.
    """
    contexts = explain.nearest_words(predictor.model.clip, predictor.model.adaptation, NEAREST)
    make_folder(path.parent)
    write_atomically(path, words_csv(contexts))
    console.print(words_table(contexts))


def words_table(contexts: Sequence[Sequence[Sequence[NearWord]]]) -> Table:
    """Return a table of the words nearest to each vector of the first context."""
    more = f", of the first of {len(contexts):,} contexts" if len(contexts) > SHOWN_CONTEXTS else ""
    table = Table("vector", "nearest words (distance)", title=f"Words nearest to the learned vectors{more}")
    table.title_justify, table.columns[0].justify = "left", "right"
    for place, words in enumerate(contexts[0], 1):
        table.add_row(str(place), Text(", ".join(f"{one.word} ({one.distance:.3f})" for one in words)))
    return table


def words_csv(contexts: Sequence[Sequence[Sequence[NearWord]]]) -> str:
    """Return CSV with a row for each vector of each context: its nearest words with their distances."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["context", "vector", *(f"{key}_{k}" for k in range(1, NEAREST + 1) for key in ("word", "distance"))]
    )
    for number, context in enumerate(contexts, 1):
        for place, words in enumerate(context, 1):
            writer.writerow([number, place, *(cell for one in words for cell in (one.word, f"{one.distance:.6g}"))])
    return text.getvalue()


def open_images(images: str, count: int) -> NamedImages:
    """Return images of a file, a folder or a pattern; raises UserError if one is broken, or there are none."""
    paths = find_images(images)[:count]
    return [Path(path).name for path in paths], [open_image(path) for path in paths]


def test_images(directory: Path, count: int, config_dir: str | Path | None) -> NamedImages:
    """Return test images of all classes in turn.

    Raises:
        UserError: the run has none, or they can't be read any more.
    """
    run = FinishedRun(directory, config_dir)
    test = next(iter(run.task(None, Console(quiet=True)).tests.values()))
    chosen = sorted({round(place * (len(test) - 1) / max(1, count - 1)) for place in range(min(count, len(test)))})
    names = image_names(test)
    return [Path(names[index]).name for index in chosen], [test.images[index] for index in chosen]


def write_attention(predictor: Predictor, names: Sequence[str], images: Sequence[Image.Image], path: Path) -> None:
    """Draw where the model looks in images, with its answers.

    Raises:
        UserError: the image tower is no vision transformer.
    """
    seen = torch.stack([predictor.preprocess(image) for image in images])
    attention = look(predictor, seen)
    answers = predictor.predict([*images])
    shown = zip(seen, attention, names, answers, strict=True)
    pictures.attention_sheet(
        [(predictor.picture(one), heat, f"{name}: {answer}") for one, heat, name, answer in shown], path
    )


def look(predictor: Predictor, pixels: Tensor) -> np.ndarray:
    """Return the attention `[B, rows, columns]` of preprocessed images `[B, 3, height, width]`; raises UserError."""
    clip = predictor.model.clip
    found: np.ndarray = explain.attention_rollout(predictor.model, pixels.to(clip.device, clip.dtype)).cpu().numpy()
    return found


def write_weights(predictor: Predictor, path: Path) -> None:
    """Draw the class weights of zero-shot and adapted CLIP in a plane.

    Raises:
        UserError: the method has no class weights, or leaves them as they are.
    """
    model = predictor.model
    if not isinstance(model, Classifier):
        raise UserError("this kind of task has no classes")
    shape = 1, 1, model.clip.width or 1
    task = placeholder_task(model.clip, model.class_names, model.adaptation.templates, shape, model.words)
    zero_shot = zero_shot_classifier(model.clip, task)
    before, after, shares = explain.in_plane(*explain.before_and_after(zero_shot, model))
    pictures.plane_picture(before.numpy(), after.numpy(), shares, model.class_names, path)
