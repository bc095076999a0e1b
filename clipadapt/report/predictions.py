"""Predictions of a classifier as a table, CSV or JSON; an image that can't be read has a row with the reason.

`errors` has the reason for each such image by its name; the probabilities or answers are those of the other images.
A class is called by its label; `words` has the names for CLIP of the classes that have others, which are beside it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from clipadapt.data.class_words import with_words
from clipadapt.report.csv_rows import as_csv

Errors = Mapping[str, str]
ClassNames = Mapping[str, Sequence[str]]
NONE_OF_THESE = "none of these"
NO_ERRORS: Errors = MappingProxyType({})
NO_WORDS: ClassNames = MappingProxyType({})
SEPARATOR = "|"
"""Between several names in one cell."""
WORD_COLUMNS = ("truth_words", "answer_words")


@dataclass(frozen=True)
class Choices:
    """Answers on images beside their probabilities.

    Attributes:
        rejected: whether each image is none of the classes; None where that wasn't asked for.
        sets: a set of classes for each image; None where that wasn't asked for.
        unknown: the answer for an image that is none of the classes; None for "none of these", and null in JSON.
        top: how many of the most probable classes to write; None for two in a table, and all in CSV and JSON.
    """

    rejected: Sequence[bool] | None = None
    sets: Sequence[Sequence[str]] | None = None
    unknown: str | None = None
    top: int | None = None

    def is_rejected(self, place: int) -> bool:
        """Return whether the image at a place is none of the classes."""
        return self.rejected is not None and self.rejected[place]

    def name(self, place: int, best: str) -> str:
        """Return the answer for the image at a place: its most probable class, or that it is none of them."""
        return (self.unknown or NONE_OF_THESE) if self.is_rejected(place) else best

    def cells(self, place: int) -> list[str]:
        """Return the set of the image at a place as a cell; no cell where no sets were asked for."""
        return [] if self.sets is None else [SEPARATOR.join(self.sets[place])]


PLAIN = Choices()
SHOWN = 2
"""Most probable classes in a table, unless others are asked for."""


def predictions_table(
    images: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    errors: Errors = NO_ERRORS,
    choices: Choices = PLAIN,
    words: ClassNames = NO_WORDS,
) -> Table:
    """Return a table with one row per image: the likeliest class and the next ones, with probabilities in percent.

    Args:
        images: names of the B images.
        class_names: names of the C classes.
        probabilities: `[B, C]`, rows sum to one; without the images in `errors`.
        errors: why images can't be read, by their names.
        choices: which of the images with probabilities are none of the classes, and their sets of classes.
        words: names for CLIP of the classes that have others than their own.
    """
    top = SHOWN if choices.top is None else choices.top
    more = ["next"] * (top > 1) + ["one of"] * (choices.sets is not None)
    table = Table("image", "class", "probability", *more)
    table.columns[2].justify = "right"
    for image, place, row in _rows(images, class_names, probabilities, errors):
        if row is None:
            table.add_row(Text(image, overflow="fold"), Text(errors[image], style="red"))
            continue
        best, *others = most_probable(row, top)
        following = "\n".join(f"{class_names[other]} ({100 * row[other]:.1f} %)" for other in others)
        (answer,) = with_words([choices.name(place, class_names[best])], words)
        cells = [image, answer, f"{100 * row[best]:.1f} %", *[following] * (top > 1)]
        among = [cell.replace("|", ", ") for cell in choices.cells(place)]
        table.add_row(*(Text(cell, overflow="fold") for cell in [*cells, *among]))
    return table


def predictions_csv(
    images: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    errors: Errors = NO_ERRORS,
    choices: Choices = PLAIN,
    words: ClassNames = NO_WORDS,
) -> str:
    """Return CSV with columns `image`, `class`, `probability`, and each class's probability `[B, C]` as `p(<name>)`.

    If K most probable classes were asked for, `class_1`, `probability_1` to `class_K`, `probability_K` are in place of
    the last. If sets were asked for, `set` has their classes, parted by |; if there are names for CLIP, `words` has
    those of the class, parted by |. If there are errors, `error` is the last column.
    """
    ranks = None if choices.top is None else min(choices.top, len(class_names))
    each = [f"p({name})" for name in class_names] if ranks is None else _rank_columns(ranks)
    more, error = ["set"] * (choices.sets is not None) + ["words"] * bool(words), ["error"] if errors else []
    rows: list[list[Any]] = [["image", "class", "probability", *each, *more, *error]]
    for image, place, row in _rows(images, class_names, probabilities, errors):
        if row is None:
            rows.append([image, "", "", *("" for _ in each), *("" for _ in more), errors[image]])
            continue
        best, *_ = ranked = most_probable(row, ranks)
        shares = [cell for k in ranked for cell in (class_names[k], float(row[k]))] if ranks else row.tolist()
        answer = choices.name(place, class_names[best])
        named = [SEPARATOR.join(words.get(answer, ()))] if words else []
        cells = [*shares, *choices.cells(place), *named, *("" for _ in error)]
        rows.append([image, answer, float(row[best]), *cells])
    return as_csv(rows)


def predictions_json(
    images: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    errors: Errors = NO_ERRORS,
    choices: Choices = PLAIN,
    words: ClassNames = NO_WORDS,
) -> str:
    """Return a JSON list of objects with `image`, `class`, `probability` and `probabilities` `[B, C]` by class name.

    The class is null for an image that is none of them, unless `choices` has another name for it; `set` has a list of
    classes, if sets were asked for. If K most probable classes were asked for, `top` has them with their probabilities,
    the most probable first, in place of `probabilities`. `words` has the names for CLIP of a class that has others.
    """
    records: list[dict[str, Any]] = []
    for image, place, row in _rows(images, class_names, probabilities, errors):
        if row is None:
            records.append({"image": image, "error": errors[image]})
            continue
        best, *_ = ranked = most_probable(row, choices.top)
        more = {} if choices.sets is None else {"set": list(choices.sets[place])}
        more |= {} if choices.is_rejected(place) or not (named := words.get(class_names[best])) else {"words": [*named]}
        name = choices.unknown if choices.is_rejected(place) else class_names[best]
        answer = {"image": image, "class": name, "probability": float(row[best]), **more}
        top = [{"class": class_names[k], "probability": float(row[k])} for k in ranked]
        by_name = dict(zip(class_names, row.tolist(), strict=True))
        records.append(answer | ({"probabilities": by_name} if choices.top is None else {"top": top}))
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def tested_csv(
    tests: Mapping[str, Mapping[str, Any]], images: Mapping[str, Sequence[str]], words: ClassNames = NO_WORDS
) -> str:
    """Return CSV of what zero-shot and adapted CLIP say of every test image, a row for each.

    Columns: `test`, `image`, `truth` (empty without a label), `answer`, `zero_shot`; then, with probabilities, the most
    probable classes and their probabilities, `class_1`, `probability_1` to at most `class_5`, `probability_5`; then, if
    there are `words`, those of the truth and the answer, `truth_words` and `answer_words`, parted by |.

    Args:
        tests: by test set: `class_names`, `labels`, `adapted`, `zero_shot` and `ranked`, as a run's predictions.
        images: names of each test set's images.
        words: names for CLIP of the classes that have others than their own.
    """
    most = max((len(row) for one in tests.values() for row in one["ranked"]), default=0)
    lines = [["test", "image", "truth", "answer", "zero_shot", *_rank_columns(most), *WORD_COLUMNS[: 2 * bool(words)]]]
    for name, one in tests.items():
        as_name = partial(_as_name, one["class_names"], bool(one["ranked"]))
        rows = one["ranked"] or [[]] * len(one["labels"])
        for image, label, after, before, ranked in zip(
            images[name], one["labels"], one["adapted"], one["zero_shot"], rows, strict=True
        ):
            shown = [cell for index, share in ranked for cell in (as_name(index), f"{share:.6g}")]
            shown += [""] * (2 * most - len(shown)) if words else []
            named = [SEPARATOR.join(words.get(as_name(index), ())) for index in (label, after)] if words else []
            lines.append([name, image, as_name(label), as_name(after), as_name(before), *shown, *named])
    return as_csv(lines)


def most_probable(row: np.ndarray, count: int | None) -> list[int]:
    """Return the indices of the `count` most probable classes, the most probable first; of all if it is None."""
    found: list[int] = np.argsort(-row, kind="stable")[:count].tolist()
    return found


def _rank_columns(count: int) -> list[str]:
    """Return the names of the columns of so many most probable classes."""
    return [column for k in range(1, count + 1) for column in (f"class_{k}", f"probability_{k}")]


def _as_name(class_names: Sequence[str], classes: bool, value: Any) -> Any:
    """Return the name of a class index, empty for an unknown class; other answers stay as they are."""
    if not classes:
        return value
    return class_names[value] if value >= 0 else ""


def answers_table(images: Sequence[str], answers: Sequence[Any], errors: Errors = NO_ERRORS) -> Table:
    """Return a row for each image with its answer."""
    table = Table("image", "answer")
    for image, answer in _merge(images, answers, errors):
        table.add_row(Text(image, overflow="fold"), Text(errors[image] if image in errors else str(answer)))
    return table


def answers_csv(images: Sequence[str], answers: Sequence[Any], errors: Errors = NO_ERRORS) -> str:
    """Return CSV with the columns `image` and `answer`."""
    found = _merge(images, answers, errors)
    if not errors:
        return as_csv([("image", "answer"), *found])
    rows = ((image, "" if answer is None else answer, errors.get(image, "")) for image, answer in found)
    return as_csv([("image", "answer", "error"), *rows])


def answers_json(images: Sequence[str], answers: Sequence[Any], errors: Errors = NO_ERRORS) -> str:
    """Return JSON: a list of objects with `image` and `answer`."""
    records = [
        {"image": image, "error": errors[image]} if image in errors else {"image": image, "answer": answer}
        for image, answer in _merge(images, answers, errors)
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def _rows(
    images: Sequence[str], class_names: Sequence[str], probabilities: np.ndarray, errors: Errors
) -> Iterator[tuple[str, int, np.ndarray | None]]:
    """Yield each image with its place among those that could be read, and its row; -1 and None for the others."""
    readable = sum(image not in errors for image in images)
    if probabilities.shape != (readable, len(class_names)):
        raise ValueError(
            f"probabilities of {readable} images and {len(class_names)} classes have shape {probabilities.shape}"
        )
    for image, place in _merge(images, range(readable), errors):
        yield (image, -1, None) if place is None else (image, place, probabilities[place])


def _merge(images: Sequence[str], values: Any, errors: Errors) -> Iterator[tuple[str, Any]]:
    """Yield each image with its value, None for one with an error."""
    readable = [image for image in images if image not in errors]
    found = dict(zip(readable, values, strict=True))
    for image in images:
        yield image, found.get(image)
