"""The command `clipadapt predict`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from clipadapt.cli.keys import find_run_directory, load, plain_settings, read_count, read_share, read_switch
from clipadapt.config.overrides import Words
from clipadapt.console import is_main_process, make_console, print_out
from clipadapt.errors import UserError, nearest
from clipadapt.files import check_new_file, write_atomically
from clipadapt.paths import checked_path

if TYPE_CHECKING:
    from torch import Tensor

    from clipadapt.api import Predictor
    from clipadapt.report.predictions import Choices
    from clipadapt.tasks.uncertainty import KnownScores

KEYS = (
    "run",
    "images",
    "format",
    "output",
    "top",
    "skip_broken",
    "calibrate",
    "reject",
    "threshold",
    "unknown",
    "coverage",
    "pretrained",
)
TABLE = "table"
FORMATS = (TABLE, "csv", "json")
SHARES = ("reject", "coverage")
"""Keys of what is set on the run's validation images."""
OF_CLASSES = ("top", "threshold")
"""Other keys that need probabilities of classes."""


@dataclass(frozen=True)
class PredictOptions:
    """Options of `clipadapt predict`: which answers, and how they are written.

    Attributes:
        form: one of FORMATS.
        output: the file to write; None to print.
        top: how many of the most probable classes to write; None for the usual number.
        calibrate: whether to scale probabilities by the run's temperature.
        shares: `reject` and `coverage`, as far as they are given.
        threshold: the probability below which an answer is none of the classes; None for none.
        unknown: what such an answer is called; None for the usual name.
    """

    form: str
    output: Path | None
    top: int | None
    calibrate: bool
    shares: Mapping[str, float]
    threshold: float | None
    unknown: str | None


def predict(words: Words) -> None:
    """Run `clipadapt predict run=DIR images=PATH [format=table|csv|json] [output=FILE] [top=K] [threshold=P] …`."""
    found = plain_settings(words, KEYS, "clipadapt predict run=DIR images=PATH")
    directory = find_run_directory(found, "predict")
    options, skip = read_options(found), read_switch(found, "skip_broken")
    paths = image_paths(found.get("images", ""))
    from clipadapt.data.broken import broken_message
    from clipadapt.data.given_images import answer_readable, tell_left_out

    predictor = load(directory, words, found)
    in_classes = predictor.kind.probabilities
    scores = check_options(options, predictor, [key for key in OF_CLASSES if key in found])
    answer: Callable[[Sequence[str]], Any] = predictor.predict_proba if in_classes else predictor.predict
    answers, errors = answer_readable(paths, answer, predictor.reset)
    if skip:
        tell_left_out(errors, len(paths))
        paths, shown = [path for path in paths if path not in errors], {}
    else:
        shown = errors
    if in_classes:
        content = class_answers(options, paths, predictor, scores, answers, shown)
    else:
        content = other_answers(options.form, paths, answers, shown)
    deliver(options, content, len(paths))
    if shown:
        advice = "leave them out with skip_broken=true"
        raise UserError(broken_message([*shown.values()], advice, ""))


def read_options(found: Mapping[str, str]) -> PredictOptions:
    """Return what the words of a command line ask of answers.

    Raises:
        UserError: words that don't fit, or don't fit together; or the output is there, or can't be written.
    """
    if "reject" in found and "threshold" in found:
        raise UserError(
            "reject= and threshold= both say which answers are none of the classes: give one of them (reject=, a share "
            "of the classes' own images; threshold=, a probability)"
        )
    if "unknown" in found and not {"reject", "threshold"} & {*found}:
        raise UserError("unknown= names the answers that reject= or threshold= take away: give one of these, too")
    output = checked_path(found["output"], "output") if "output" in found else None
    options = PredictOptions(
        form=read_format(found.get("format"), output),
        output=output,
        top=read_count("top", found["top"]) if "top" in found else None,
        calibrate=read_switch(found, "calibrate"),
        shares={key: read_share(key, found[key]) for key in SHARES if key in found},
        threshold=read_share("threshold", found["threshold"]) if "threshold" in found else None,
        unknown=found.get("unknown"),
    )
    if output is not None:
        check_new_file(output, "output")
    return options


def read_format(given: str | None, output: Path | None) -> str:
    """Return the format of answers: the given one, else that of the output's name, else a table.

    Raises:
        UserError: there is no such format, or the output's name says none, another one, or that of a table.
    """
    if given is not None and given not in FORMATS:
        raise UserError(f"there is no format '{given}': {nearest(given, FORMATS)}")
    if output is None:
        return given or TABLE
    named = output.suffix.lower().removeprefix(".")
    named = named if named in FORMATS and named != TABLE else ""
    if given == TABLE:
        raise UserError("a table is for the terminal: with output=, give format=csv or format=json")
    if given and named and given != named:
        raise UserError(
            f"output={output} is {named} by its name, and format={given} is another format: give one of both"
        )
    if not given and not named:
        raise UserError(f"output={output} has no format by its name: end it in .csv or .json, or give format=")
    return given or named


def check_options(options: PredictOptions, predictor: "Predictor", of_classes: Sequence[str]) -> "KnownScores | None":
    """Check that a run can answer as asked for, before images are read; return its scores if they are needed.

    Args:
        options: what is asked for.
        predictor: of the run.
        of_classes: the given keys that need probabilities of classes.

    Raises:
        UserError: the run has no probabilities, too few validation images, or a class of the name of unknown images.
    """
    from clipadapt.report.predictions import NONE_OF_THESE  # imports NumPy

    if of_classes and not predictor.kind.probabilities:
        raise UserError(f"this run's answers are no classes with probabilities, which {of_classes[0]}= needs")
    taken_away = options.threshold is not None or "reject" in options.shares
    if taken_away and (unknown := options.unknown or NONE_OF_THESE) in predictor.class_names:
        raise UserError(f"'{unknown}' is the name of a class of this run: give images of none another with unknown=…")
    if not (options.shares or options.calibrate):
        return None
    scores = predictor.known_scores()
    scores.check(options.shares, options.calibrate)
    return scores


def image_paths(given: str) -> list[str]:
    """Return the paths of the image files of a file, a folder (with its subfolders) or a pattern, sorted.

    Raises:
        UserError: there are no image files.
    """
    if not given:
        raise UserError("say which images: images=photo.jpg, images=a_folder or 'images=photos/*.jpg'")
    from clipadapt.data.given_images import find_images

    return find_images(given)


def class_answers(
    options: PredictOptions,
    paths: Sequence[str],
    predictor: "Predictor",
    scores: "KnownScores | None",
    answers: "Tensor",
    errors: Mapping[str, str],
) -> Table | str:
    """Return a table, CSV or JSON of probabilities `[B, C]`; errors are in their rows."""
    from clipadapt.data.tasks import unique_names
    from clipadapt.report import predictions

    names = unique_names(predictor.class_names)
    probabilities = scores.calibrate(answers) if scores and options.calibrate else answers
    choices = make_choices(options, scores, answers, probabilities, names)
    labelled = zip(names, predictor.class_names, strict=True)
    words = {name: predictor.words[label] for name, label in labelled if label in predictor.words}
    if options.form == TABLE:
        return predictions.predictions_table(paths, names, probabilities.numpy(), errors, choices, words)
    write = {"csv": predictions.predictions_csv, "json": predictions.predictions_json}[options.form]
    return write(paths, names, probabilities.numpy(), errors, choices, words)


def make_choices(
    options: PredictOptions,
    known: "KnownScores | None",
    answers: "Tensor",
    probabilities: "Tensor",
    names: Sequence[str],
) -> "Choices":
    """Return which images are none of the classes, and their sets of classes, as far as that was asked for.

    Args:
        options: what is asked for.
        known: what the run's validation images say; None where nothing that needs it is asked for.
        answers: probabilities `[B, C]` as they are.
        probabilities: those that are written, `[B, C]`, on which a threshold of the user's own is meant.
        names: of the C classes.
    """
    from clipadapt.report.predictions import Choices

    rejected = None
    if options.threshold is not None:
        rejected = (probabilities.amax(dim=-1) < options.threshold).tolist()
    elif known and "reject" in options.shares:
        rejected = known.reject(answers, options.shares["reject"]).tolist()
    sets = known.sets(answers, options.shares["coverage"], names) if known and "coverage" in options.shares else None
    return Choices(rejected, sets, options.unknown, options.top)


def other_answers(form: str, paths: Sequence[str], answers: Sequence[Any], errors: Mapping[str, str]) -> Table | str:
    """Return a table, CSV or JSON of answers that are not classes; errors are in their rows."""
    from clipadapt.report import predictions

    if form == TABLE:
        return predictions.answers_table(paths, answers, errors)
    return {"csv": predictions.answers_csv, "json": predictions.answers_json}[form](paths, answers, errors)


def deliver(options: PredictOptions, content: Table | str, count: int) -> None:
    """Print the answers to `count` images, or write them to a file, whole."""
    if isinstance(content, Table):
        make_console().print(content)
    elif options.output is None:
        print_out(content.rstrip("\n"))
    elif is_main_process():
        # Bytes of a name that isn't UTF-8: JSON has an escape for them, CSV takes them as they are.
        errors = "backslashreplace" if options.form == "json" else "surrogateescape"
        write_atomically(options.output, content.encode("utf-8", errors))
        print_out(f"{count:,} image{'' if count == 1 else 's'}: {options.output} has the answers.")
