"""Types of what a finished run's JSON files hold, which are checked before anything is used."""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Len
from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError

from clipadapt.paths import shorten, why_deceiving


def shown(name: str) -> str:
    """Return a name, which messages, tables and pages show as it is; raises ValueError if they can't."""
    if reason := why_deceiving(name):
        raise ValueError(reason)
    return name


Name = Annotated[str, AfterValidator(shown)]
"""A name that others gave."""


class Backbone(BaseModel):
    """What a record says of the backbone; a family of backbones adds its settings."""

    name: Name
    fingerprint: Name


class Record(BaseModel):
    """What is used of a run's record."""

    task: Name
    class_names: Annotated[list[Name], Len(1)]
    words: dict[Name, Annotated[list[Name], Len(1)]] = {}
    templates: list[str]
    shots: int
    seed: int
    fingerprint: str
    support_shape: Annotated[list[Annotated[int, Ge(0)]], Len(3, 3)]
    backbone: Backbone
    versions: dict[str, str] = {}


class Figure(BaseModel):
    """How a figure is shown."""

    title: str
    percent: bool
    higher_is_better: bool


Figures = dict[str, float]
Interval = Annotated[list[float], Len(2, 2)]


class Scores(BaseModel):
    """Scores of validation images."""

    truth: list[float]
    matching: list[float]
    unseen: list[str]
    temperature: Annotated[float, Gt(0)] | None = None


class CrossValidation(BaseModel):
    """Figures on images of the support set that folds have held out."""

    folds: int
    images: int
    figures: dict[str, Figure]
    scores: Figures


class Result(BaseModel):
    """What is used of every run's metrics; those on the first test set are there by their names, too."""

    tests: dict[str, Figures]
    figures: dict[str, Figure] = {}
    per_class: Figures = {}
    zero_shot_per_class: Figures = {}
    classes: dict[str, Figures] = {}
    intervals: dict[str, Interval] = {}
    zero_shot_intervals: dict[str, Interval] = {}
    known_scores: Scores | None = None
    calibrated: Figures = {}
    cross_validation: CrossValidation | None = None
    parameters: int
    share: float
    seconds: float
    peak_memory_mb: float
    processes: int
    schedule_note: str | None
    test_note: str | None = None


class Predictions(BaseModel):
    """Predictions for a test set."""

    class_names: list[str]
    labels: list[Any]
    zero_shot: list[Any]
    adapted: list[Any]
    ranked: list[list[list[float]]] = []


def check_record(found: Any) -> dict[str, Any]:
    """Return a run's record after a check of what is used of it.

    Raises:
        ValueError: something is missing, or of another type.
    """
    checked: dict[str, Any] = check(Record, found)
    return checked


def check_result(found: Any) -> dict[str, Any]:
    """Return a run's metrics after a check of what is used of them.

    Raises:
        ValueError: something is missing, or of another type.
    """
    checked: dict[str, Any] = check(Result, found)
    names = [name for figure in found.get("figures", {}) for name in (figure, f"zero_shot_{figure}")]
    if found["tests"]:
        check(dict[str, float], {name: found.get(name) for name in [*names, "images"]})
    for test, figures in found["tests"].items():
        if not names or not {*names, "images"} <= {*figures}:
            raise ValueError(f"tests.{test}: a figure is missing")
    if {*found.get("per_class", ())} != {*found.get("zero_shot_per_class", ())}:
        raise ValueError("per_class: its classes are others than those of zero_shot_per_class")
    return checked


def check_history(found: Any) -> list[dict[str, float]]:
    """Return the loss, score and learning rate of each epoch after a check of them.

    Raises:
        ValueError: something is missing, or of another type.
    """
    rows: list[dict[str, float]] = check(list[Figures], found)
    if any(not {"epoch", "loss", "lr"} <= {*row} for row in rows):
        raise ValueError("an epoch, its loss or its learning rate is missing")
    return rows


def check_figures(found: Any) -> dict[str, float]:
    """Return the figures of one test set after a check of them.

    Raises:
        ValueError: something is missing, or of another type.
    """
    checked: dict[str, float] = check(Figures, found)
    return checked


def check_predictions(found: Any) -> dict[str, Any]:
    """Return predictions by test set after a check of them.

    Raises:
        ValueError: something is missing, or of another type.
    """
    checked: dict[str, Any] = check(dict[str, Predictions], found)
    return checked


def check(kind: Any, found: Any) -> Any:
    """Return a plain value, as it is, after a check of its type.

    Raises:
        ValueError: it is of another type; the message names the place of the first mistake.
    """
    try:
        TypeAdapter(kind).validate_python(found, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        text = first["msg"].removeprefix("Value error, ")
        place = shorten(".".join(map(str, first["loc"])))
        raise ValueError(f"{place}: {text}" if place else text) from error
    return found
