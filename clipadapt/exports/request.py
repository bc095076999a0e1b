"""What a format is asked to write, and the check of what it has written."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipadapt.errors import UserError
from clipadapt.exports.answers import Answers
from clipadapt.exports.examples import Examples
from clipadapt.runs.predictor import Predictor
from clipadapt.tasks import Head

ROUNDING = 1e-3
"""Difference of probabilities above which a file isn't the predictor."""


@dataclass(frozen=True)
class Request:
    """A predictor to export, images to check it on, and the format's options."""

    predictor: Predictor
    examples: Examples
    options: Mapping[str, Any]

    @property
    def head(self) -> Head:
        """Return the adapted CLIP with its head."""
        return self.predictor.model

    @cached_property
    def answers(self) -> Answers:
        """Return the module from pixels to answers."""
        return Answers(self.head, self.predictor.kind)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pixels `[B, 3, height, width]` of the examples, and the predictor's answers `[B, ...]`."""
        for pixels in self.examples.batches(self.head.clip):
            yield pixels, self.answers(pixels)

    def compare(self, answer: Callable[[Tensor], Tensor], rounding: float | None = ROUNDING) -> "Comparison":
        """Return how far the answers of an exported file are from the predictor's.

        Args:
            answer: maps pixels to the file's answers.
            rounding: the largest difference that is rounding; None for a file that may differ.

        Raises:
            UserError: the file answers otherwise than the predictor.
        """
        pairs = [(expected, answer(pixels)) for pixels, expected in self.batches()]
        expected, found = (torch.cat(each) for each in zip(*pairs, strict=True))
        return self.weigh(expected, found, rounding)

    def weigh(self, expected: Tensor, found: Tensor, rounding: float | None = ROUNDING) -> "Comparison":
        """Return how far answers `[N, ...]` are from the predictor's; arguments and errors as of `compare`."""
        difference = float((expected - found).abs().max())
        if rounding is not None and not difference <= rounding:
            raise UserError(
                f"this method can't be exported so: the file's answers are up to {difference:.2g} from the predictor's "
                f"({self.examples.source}), and nothing was written"
            )
        classes = self.predictor.kind.probabilities
        same = float((expected.argmax(-1) == found.argmax(-1)).float().mean()) if classes else None
        labels = self.examples.labels if classes else None
        accuracies = None if labels is None else tuple(accuracy(each, labels) for each in (expected, found))
        return Comparison(difference, self.examples.source, same, accuracies)


@dataclass(frozen=True)
class Comparison:
    """How far the answers of an exported file are from the predictor's.

    Attributes:
        difference: the largest difference of probabilities.
        source: which images were compared, in words.
        same: share of images with the same most probable class; None for answers that aren't probabilities.
        accuracies: of the predictor and of the file; None without labels.
    """

    difference: float
    source: str
    same: float | None = None
    accuracies: tuple[float, ...] | None = None

    def __str__(self) -> str:
        """Return the comparison in words."""
        text = f"largest difference {self.difference:.2g} ({self.source})"
        if self.accuracies is not None:
            before, after = self.accuracies
            return f"{text}, accuracy {after:.2%} after {before:.2%} before"
        return text if self.same is None else f"{text}, {self.same:.2%} have the same most probable class"


@dataclass(frozen=True)
class Written:
    """What a format has written.

    Attributes:
        compared: the comparison with the predictor.
        notes: sentences for the user.
        figures: further figures, by name.
    """

    compared: Comparison
    notes: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def accuracy(answers: Tensor, labels: Tensor) -> float:
    """Return the share of images `[N]` whose most probable class is theirs."""
    return float((answers.argmax(-1) == labels).float().mean())


@contextmanager
def as_user_error(what: str) -> Iterator[None]:
    """Turn an error of another package into a UserError in one sentence.

    Args:
        what: what could not be done.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # exporters raise errors of any type
        first: BaseException = error
        while first.__cause__ is not None:  # what went wrong, without what exporters say around it
            first = first.__cause__
        lines = str(first).strip().splitlines() or [type(first).__name__]
        raise UserError(f"{what} ({lines[0][:300].rstrip('. ')})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters log and warn of from the user; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
