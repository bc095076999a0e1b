"""Predictions of a classifier as a table, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text


def predictions_table(images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray) -> Table:
    """Return a table with one row per image: the likeliest class and the next one, with probabilities in percent.

    Args:
        images: names of the B images.
        class_names: names of the C classes.
        probabilities: `[B, C]`, rows sum to one.
    """
    table = Table("image", "class", "probability", "next")
    table.columns[2].justify = "right"
    for image, row in _rows(images, class_names, probabilities):
        best, *others = np.argsort(-row, kind="stable")
        following = f"{class_names[others[0]]} ({100 * row[others[0]]:.1f} %)" if others else ""
        table.add_row(
            Text(image, overflow="fold"), Text(class_names[best]), f"{100 * row[best]:.1f} %", Text(following)
        )
    return table


def predictions_csv(images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray) -> str:
    """Return CSV with columns `image`, `class`, `probability`, and each class's probability `[B, C]` as `p(<name>)`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", "probability", *(f"p({name})" for name in class_names)])
    for image, row in _rows(images, class_names, probabilities):
        best = int(np.argmax(row))
        writer.writerow([image, class_names[best], float(row[best]), *row.tolist()])
    return text.getvalue()


def predictions_json(images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray) -> str:
    """Return a JSON list of objects with `image`, `class`, `probability` and `probabilities` `[B, C]` by class name."""
    records = []
    for image, row in _rows(images, class_names, probabilities):
        best = int(np.argmax(row))
        by_name = dict(zip(class_names, row.tolist(), strict=True))
        records.append(
            {"image": image, "class": class_names[best], "probability": float(row[best]), "probabilities": by_name}
        )
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def tested_csv(tests: Mapping[str, Mapping[str, Any]], images: Mapping[str, Sequence[str]]) -> str:
    """Return CSV of what zero-shot and adapted CLIP say of every test image, a row for each.

    Columns: `test`, `image`, `truth` (empty without a label), `answer`, `zero_shot`; then, with probabilities, the most
    probable classes and their probabilities, `class_1`, `probability_1` to at most `class_5`, `probability_5`.

    Args:
        tests: by test set: `class_names`, `labels`, `adapted`, `zero_shot` and `ranked`, as a run's predictions.
        images: names of each test set's images.
    """
    most = max((len(row) for one in tests.values() for row in one["ranked"]), default=0)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ranks = [column for k in range(1, most + 1) for column in (f"class_{k}", f"probability_{k}")]
    writer.writerow(["test", "image", "truth", "answer", "zero_shot", *ranks])
    for name, one in tests.items():
        in_words = partial(_in_words, one["class_names"], bool(one["ranked"]))
        rows = one["ranked"] or [[]] * len(one["labels"])
        for image, label, after, before, ranked in zip(
            images[name], one["labels"], one["adapted"], one["zero_shot"], rows, strict=True
        ):
            shown = [cell for index, share in ranked for cell in (in_words(index), f"{share:.6g}")]
            writer.writerow([name, image, in_words(label), in_words(after), in_words(before), *shown])
    return text.getvalue()


def _in_words(class_names: Sequence[str], classes: bool, value: Any) -> Any:
    """Return the name of a class index, empty for an unknown class; other answers stay as they are."""
    if not classes:
        return value
    return class_names[value] if value >= 0 else ""


def answers_table(images: Sequence[str], answers: Sequence[Any]) -> Table:
    """Return a row for each image with its answer."""
    table = Table("image", "answer")
    for image, answer in zip(images, answers, strict=True):
        table.add_row(Text(image, overflow="fold"), Text(str(answer)))
    return table


def answers_csv(images: Sequence[str], answers: Sequence[Any]) -> str:
    """Return CSV with the columns `image` and `answer`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("image", "answer"), *zip(images, answers, strict=True)])
    return text.getvalue()


def answers_json(images: Sequence[str], answers: Sequence[Any]) -> str:
    """Return JSON: a list of objects with `image` and `answer`."""
    records = [{"image": image, "answer": answer} for image, answer in zip(images, answers, strict=True)]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def _rows(
    images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    if probabilities.shape != (len(images), len(class_names)):
        raise ValueError(
            f"probabilities of {len(images)} images and {len(class_names)} classes have shape {probabilities.shape}"
        )
    return zip(images, np.asarray(probabilities), strict=True)
