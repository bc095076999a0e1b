"""Aggregate the runs of a study over seeds, and write tables, curves and a page."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from clipadapt.config import data_name
from clipadapt.data import Split
from clipadapt.errors import DataError, UserError
from clipadapt.files import write_atomically
from clipadapt.report import comparison, results
from clipadapt.report.curves import few_shot_curves
from clipadapt.report.page import Page, PredictionChanges
from clipadapt.report.points import collect_points
from clipadapt.report.published import published_sheets
from clipadapt.report.rows import Row
from clipadapt.report.statistics import BASE, HARMONIC, NEW, aggregate_scores
from clipadapt.report.tables import shots_text
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.lock import hold_and_tidy
from clipadapt.runs.methods import build_settings
from clipadapt.runs.tasks import build_task, validated_images
from clipadapt.studies import RunSpec, Study


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run: its metrics, or why it has none.

    Attributes:
        spec: the run.
        metrics: the run's metrics; empty if it failed.
        failure: the reason why it failed; None if it didn't.
        notes: sentences to show beside its metrics, such as why it has none on a further test set.
        zero_shot: whether nothing was learned, neither in training nor at test time.
    """

    spec: RunSpec
    metrics: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    notes: list[str] = field(default_factory=list)
    zero_shot: bool = False


def aggregate_rows(outcomes: Sequence[RunOutcome], targets: Sequence[str] = ()) -> Iterator[Row]:
    """Yield a row for each data set, method and number of shots, over seeds; `targets` are the names of the study's."""
    found: dict[tuple[str, str, int], list[RunOutcome]] = {}
    for one in outcomes:
        found.setdefault((one.spec.data, one.spec.method, one.spec.shots), []).append(one)
    for some in found.values():
        yield aggregate_row(some, targets)


def aggregate_row(outcomes: Sequence[RunOutcome], targets: Sequence[str]) -> Row:
    """Return the row of the outcomes of one method, which differ in their seeds."""
    spec, done = outcomes[0].spec, [one for one in outcomes if one.failure is None]
    failed: dict[str, list[int]] = {}
    for one in outcomes:
        for reason in one.notes if one.failure is None else [one.failure]:
            failed.setdefault(reason, []).append(one.spec.seed)
    scores = aggregate_scores([one.metrics["tests"] for one in done])
    return {
        "backbone": spec.config["backbone"]["name"],
        "data": data_title(spec),
        "method": spec.method,
        "title": method_title(spec),
        "shots": spec.shots,
        "seeds": [one.spec.seed for one in done],
        "zero_shot": bool(done) and all(one.zero_shot for one in done),
        "scores": scores,
        "targets": [name for name in scores if name in targets],
        "parameters": max((one.metrics["parameters"] for one in done), default=0),
        "seconds": sum(one.metrics["seconds"] for one in done) / max(1, len(done)),
        "peak_memory_mb": max((one.metrics["peak_memory_mb"] for one in done), default=0.0),
        "schedule_note": build_settings(spec.config).schedule_note,
        "test_note": next((note for one in done if (note := one.metrics.get("test_note"))), None),
        "failed": failed,
        "runs": [one.spec.directory.as_posix() for one in done],
    }


def method_title(spec: RunSpec) -> str:
    """Return a method's name for tables."""
    title: str = spec.config["method"]["title"] or spec.method
    return title


def data_title(spec: RunSpec) -> str:
    """Return the data's name for tables; for a user's own images, with the name of their folder or table."""
    name = data_name(spec.config["data"], spec.config["config_dir"])
    return name if "root" in spec.config["data"] and name.startswith(f"{spec.data}-") else spec.data


def list_results(outcomes: Sequence[RunOutcome]) -> Iterator[dict[str, Any]]:
    """Yield a row for every test set of every run that has a result; its keys are results.COLUMNS."""
    for one in outcomes:
        spec, config = one.spec, one.spec.config
        run = {
            "backbone": config["backbone"]["name"],
            "data": data_title(spec),
            "method": spec.method,
            "shots": spec.shots,
        }
        run |= {"seed": spec.seed, "classes": config["classes"], "run": spec.directory.as_posix()}
        for test, figures in one.metrics.get("tests", {}).items():
            found = {"test_note": None, **one.metrics, **run, "test_set": test, **figures}
            yield {key: found[key] for key in results.COLUMNS}


def make_page(study: Study, rows: Sequence[Row], outcomes: Sequence[RunOutcome]) -> Page:
    """Return the page about a study; its curves must have been drawn."""
    curves = study.directory / "curves.png"
    methods, data, titles = ({row[key]: None for row in rows} for key in ("method", "data", "title"))
    backbone = study.runs[0].config["backbone"]
    return Page(
        title=study.protocol.replace("_", " ").capitalize(),
        lead=[
            f"{', '.join(methods)} on {', '.join(data)}.",
            *{row["schedule_note"] for row in rows if row["schedule_note"]},
            *{f"{row['title']}: {row['test_note']}." for row in rows if row["test_note"]},
        ],
        sheets=[*comparison.sheets(rows), *published_sheets(study.protocol, backbone, titles)],
        curves=curves if curves.is_file() else None,
        gains=[*find_prediction_changes(outcomes)],
    )


def find_prediction_changes(outcomes: Sequence[RunOutcome]) -> Iterator[PredictionChanges]:
    """Yield what changed against zero-shot in each method's run with most shots and first seed, on each data set.

    On the first test set; if the classes are halved, on both halves.
    """
    found: dict[tuple[str, str], RunOutcome] = {}
    for one in outcomes:
        known = found.get((one.spec.data, one.spec.method))
        if not one.zero_shot and one.failure is None and (known is None or one.spec.shots > known.spec.shots):
            found[one.spec.data, one.spec.method] = one
    tests: dict[str, dict[str, Split]] = {}
    for one in found.values():
        predictions = RunDirectory(one.spec.directory).predictions()
        for test in [name for name in (BASE, NEW) if name in predictions] or [*predictions][:1]:
            yield make_prediction_changes(one, test, predictions[test], tests)


def make_prediction_changes(
    one: RunOutcome, test: str, predictions: dict[str, Any], tests: dict[str, dict[str, Split]]
) -> PredictionChanges:
    """Return what a run changed against zero-shot on a test set, with the images if they are there.

    `tests` caches the test sets by task.
    """
    images = unread = None
    try:
        images = tested_images(one.spec.config, test, predictions["labels"], tests)
    except UserError as error:
        unread = f"the images can't be shown: {error}"
    spec = one.spec
    half = f" ({test} classes)" if test in (BASE, NEW) else ""
    return PredictionChanges(
        title=f"{method_title(spec)} on {data_title(spec)}{half}, {shots_text(spec.shots)}, seed {spec.seed}",
        class_names=predictions["class_names"],
        labels=predictions["labels"],
        before=predictions["zero_shot"],
        after=predictions["adapted"],
        images=images,
        unread=unread,
    )


def tested_images(
    config: dict[str, Any], test: str, labels: list[int], tests: dict[str, dict[str, Split]]
) -> Sequence[Image.Image]:
    """Return the images of a run's test set, listed once for all runs of the same task.

    Raises:
        DataError: they can't be read, or have changed since the run.
    """
    task = json.dumps([config[key] for key in ("data", "task", "shots", "seed", "classes")], sort_keys=True)
    if task not in tests:
        found = build_task(config)
        found = validated_images(found, config) if config["task"]["skip_broken"] else found
        tests[task] = found.tests
    split = tests[task].get(test)
    if split is None or split.labels != labels:
        raise DataError("the data have changed since the run")
    return split.images


def save(study: Study, rows: Sequence[Row], outcomes: Sequence[RunOutcome]) -> None:
    """Write the results of a study to its directory.

    comparison.md and .tex have the tables, rows.csv and .json the values behind them, results.csv a row for each run
    and test set, curves.png accuracy against shots, report.html all of it and the images whose predictions changed.
    """
    folder = study.directory
    with hold_and_tidy(folder):
        write_atomically(folder / "comparison.md", comparison.markdown(rows))
        write_atomically(folder / "comparison.tex", comparison.latex(rows))
        write_atomically(folder / "rows.csv", comparison.csv_text(rows))
        write_atomically(folder / "rows.json", json.dumps(rows, indent=2) + "\n")
        points, zero_shot = collect_points(rows)
        if points:
            halves = comparison.HALF_AND_HALF if any(HARMONIC in row["scores"] for row in rows) else None
            schedule_note = "; ".join(text for text in (halves, rows[0]["schedule_note"]) if text)
            few_shot_curves(points, zero_shot, folder / "curves.png", schedule_note or None)
        write_atomically(folder / "results.csv", results.csv_text(list_results(outcomes)))
        write_atomically(folder / "report.html", make_page(study, rows, outcomes).html())
