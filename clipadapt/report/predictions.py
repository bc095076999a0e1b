"""Predictions of a classifier as a table, CSV or JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
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
