"""The command line, with a function for each command. PyTorch is imported only after the settings are checked."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipadapt import __version__, config
from clipadapt.cli import data as data_command
from clipadapt.cli import launching
from clipadapt.cli.help import COMMANDS, help_for
from clipadapt.cli.signals import stop_on_signals
from clipadapt.config.grids import GRID_KEYS, read_lists
from clipadapt.config.overrides import Words, non_overrides, split
from clipadapt.console import make_console, print_out, run_command
from clipadapt.errors import UserError, nearest
from clipadapt.files import check_free
from clipadapt.paths import checked_path, shorten
from clipadapt.runs.model_hub import fetch, is_repository
from clipadapt.studies.grid import ALL, DEFAULT_MINUTES, check_minutes, grid, write_list
from clipadapt.studies.protocols import comparison
from clipadapt.threads import shorten_waits

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from clipadapt.api import Predictor
    from clipadapt.report.predictions import Choices
    from clipadapt.tasks.uncertainty import KnownScores

FORMATS = ("table", "csv", "json")
AUTO = "method=auto"
"""The word that makes `clipadapt choose` of `clipadapt fit`."""
SHARES: tuple[str, ...] = ("reject", "coverage")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0; 2 for an error that the user can fix; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with stop_on_signals():
        return run_command(lambda: run(arguments))


def run(arguments: list[str]) -> int:
    """Find the command among the words, `fit` if there is none, and run it."""
    config.raise_all(f"{shorten(word)} holds the character \\0" for word in arguments if "\0" in word)
    shorten_waits()
    command, rest = find_command(arguments)
    words = split(rest)
    if "--help" in words.options:
        print_out(help_for(command, words.options.get("--config-dir")))
    elif "--version" in words.options:
        print_out(f"clipadapt {__version__}")
    elif command in ("fit", None) and AUTO in words.settings:
        config.raise_all(["method=auto chooses for one run: give it without -m"] * ("--multirun" in words.options))
        choose_method(Words(words.options, [word for word in words.settings if word != AUTO]))
    elif command in ("fit", None):
        launching.launch(fit, rest)
    else:
        commands: dict[str, Callable[[Words], None]] = {
            "compare": compare,
            "choose": choose_method,
            "evaluate": evaluate,
            "predict": predict,
            "list": list_runs,
            "show": show_run,
            "mistakes": show_mistakes,
            "pack": pack,
            "push": push,
            "methods": methods,
            "data": data_command.run,
        }
        commands[command](words)
    return 0


def find_command(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the command word, None if there is none, and the words without it.

    Raises:
        UserError: a word that should be a command isn't one.
    """
    for place, word in enumerate(split(arguments).settings):
        if word in COMMANDS:
            at = arguments.index(word)
            return word, arguments[:at] + arguments[at + 1 :]
        if place == 0 and word.isidentifier() and arguments[0] == word and not config.options(word):
            alone = len(arguments) == 1 or "=" in arguments[1] or arguments[1].startswith("-")
            if alone or "did you mean" in nearest(word, COMMANDS):
                raise UserError(f"there is no command '{word}': {nearest(word, COMMANDS)}")
    return None, arguments


def fit(settings: dict[str, Any]) -> dict[str, Any]:
    """Run `clipadapt fit`: train, evaluate, and show zero-shot against adapted; return the metrics."""
    directory = config.run_directory(settings)
    from clipadapt.runs.run import run as run_in_directory  # imports PyTorch

    try:
        return run_in_directory(settings, directory, make_console()).metrics
    except KeyboardInterrupt as stop:
        stop.args = (str(directory),)
        raise


def compare(words: Words) -> None:
    """Run `clipadapt compare methods=[…] data=[…] shots=[…] seed=[…] [key=value …]`: all combinations, in one table."""
    config.raise_all(f"{option} has no meaning here" for option in words.options if option != "--config-dir")
    folder = words.options.get("--config-dir")
    grid, overrides = read_lists(words.settings, folder)
    study = comparison(grid, overrides, folder)
    from clipadapt.studies.compare import show

    show(study)


def choose_method(words: Words) -> None:
    """Run `clipadapt choose [methods=[…]] [minutes=10] [key=value …]`: find the best method, and fit it."""
    began = time.monotonic()
    config.raise_all(f"{option} has no meaning here" for option in words.options if option != "--config-dir")
    folder = words.options.get("--config-dir")
    given, overrides = read_lists(words.settings, folder, (*GRID_KEYS, "minutes"))
    config.raise_all(
        f"{write_list(key, values)}: a method is chosen for one {key}; give one value"
        for key, values in given.items()
        if key != "methods" and len(values) != 1
    )
    minutes = check_minutes(given.pop("minutes", [DEFAULT_MINUTES])[0])
    if given.get("methods", [ALL]) == [ALL]:
        any_method = next(iter(config.options("method", folder)))
        grid(given | {"methods": [any_method]}, overrides, folder)  # what is wrong for all is told by one
    runs = grid({"methods": [ALL]} | given, overrides, folder)
    from clipadapt.studies.candidates import needs_more  # imports PyTorch
    from clipadapt.studies.choice import choose_in_directory

    usable = runs if given.get("methods", [ALL]) != [ALL] else [one for one in runs if not needs_more(one.config)]
    choose_in_directory(usable, minutes, make_console(), began)


def plain_settings(words: Words, known: Sequence[str], example: str = "") -> dict[str, str]:
    """Return the key=value words of a command other than `fit` as a dictionary.

    Args:
        words: of the command line.
        known: the keys of the command.
        example: how the command is written, for words that aren't key=value.

    Raises:
        UserError: words that aren't key=value, or keys and options that the command doesn't have.
    """
    good, problems = non_overrides(words.settings, lambda: known)
    if example:
        own = tuple(f"as in {key}=" for key in known)
        problems = [text if any(map(text.__contains__, own)) else with_example(text, example) for text in problems]
    found = dict(word.split("=", 1) for word in good if "=" in word)
    problems += [f"there is no key {key}: {nearest(key, known)}" for key in found if key not in known]
    problems += [f"{option} has no meaning here" for option in words.options if option != "--config-dir"]
    config.raise_all(problems)
    return found


def with_example(text: str, example: str) -> str:
    """Return advice on words that aren't key=value, with a whole command in place of an unknown key."""
    return f"{text.partition(', as in ')[0]}, as in {example}"


def find_run_directory(found: dict[str, str], command: str) -> Path:
    """Return the directory that `run=` names: a run's, an artifact's, or a copy of a repository of the hub.

    Raises:
        UserError: the words have no `run=`, or there is no such directory and no such repository.
    """
    if not found.get("run"):
        raise UserError(f"say which run: clipadapt {command} run=outputs/digits/tiny/coop/shots16-seed1")
    directory = checked_path(found["run"], "run")
    if os.path.isdir(directory):
        return directory
    name, _, revision = found["run"].partition("@")
    if not is_repository(name):
        raise UserError(f"there is no run directory {directory}")
    return fetch(name, revision or None, None)


def evaluate(words: Words) -> None:
    """Run `clipadapt evaluate run=DIR [data=… classes=data|run]`: evaluate a run on its own test sets or other data."""
    data = [word for word in words.settings if _of_other_data(word.partition("=")[0].lstrip("+"))]
    rest = Words(words.options, [word for word in words.settings if word not in data])
    found = plain_settings(rest, ("run", "data", "classes"), "clipadapt evaluate run=DIR data=NAME")
    directory = find_run_directory(found, "evaluate")
    if data and "data" not in found:
        raise UserError(f"say which data first: data=folder {' '.join(data)}")
    if "classes" in found and "data" not in found:
        raise UserError("classes= says which classes compete on other data: name them with data=…")
    folder = words.options.get("--config-dir")
    chosen = config.compose([f"data={found['data']}", *data], folder) if "data" in found else None
    from clipadapt.runs.competing import check_competing
    from clipadapt.runs.finished import evaluate_finished

    other: dict[str, Any] = {}
    if chosen is not None:
        other |= {"data": chosen["data"], "skip_broken": chosen["task"]["skip_broken"]}
    other |= {"classes": check_competing(found["classes"])} if "classes" in found else {}
    evaluate_finished(directory, console=make_console(), config_dir=folder, **other)


def _of_other_data(key: str) -> bool:
    """Return whether a key of `clipadapt evaluate` is a setting of the other data."""
    return key.startswith("data.") or key == "task.skip_broken"


def predict(words: Words) -> None:
    """Run `clipadapt predict run=DIR images=PATH [format=table|csv|json] [reject=0.05] [coverage=0.9] …`."""
    known = ("run", "images", "format", "skip_broken", "calibrate", "reject", "coverage", "pretrained")
    found = plain_settings(words, known, "clipadapt predict run=DIR images=PATH")
    directory = find_run_directory(found, "predict")
    form = found.get("format", "table")
    if form not in FORMATS:
        raise UserError(f"there is no format '{form}': {nearest(form, FORMATS)}")
    skip, calibrate = (read_switch(found, key) for key in ("skip_broken", "calibrate"))
    shares = {key: read_share(key, found[key]) for key in SHARES if key in found}
    paths = image_paths(found.get("images", ""))
    from clipadapt.data.broken import broken_message
    from clipadapt.data.given_images import answer_readable, tell_left_out
    from clipadapt.data.tasks import unique_names

    predictor = load(directory, words, found)
    in_classes = predictor.kind.probabilities
    scores = predictor.known_scores() if shares or calibrate else None
    if scores is not None:
        scores.check(shares, calibrate)  # too few validation images are told before images are read
    answer: Callable[[Sequence[str]], Any] = predictor.predict_proba if in_classes else predictor.predict
    answers, errors = answer_readable(paths, answer, lambda: predictor.reset())
    if skip:
        tell_left_out(errors, len(paths))
        paths, shown = [path for path in paths if path not in errors], {}
    else:
        shown = errors
    if in_classes:
        names = unique_names(predictor.class_names)
        choices = make_choices(scores, answers, names, shares)
        probabilities = scores.calibrate(answers) if scores and calibrate else answers
        show(form, paths, names, probabilities.numpy(), shown, choices)
    else:
        show_answers(form, paths, answers, shown)
    if shown:
        advice = "leave them out with skip_broken=true"
        raise UserError(broken_message([*shown.values()], advice, ""))


def image_paths(given: str) -> list[str]:
    """Return the paths of the image files of a file, a folder (with its subfolders) or a pattern, sorted.

    Raises:
        UserError: there are no image files.
    """
    if not given:
        raise UserError("say which images: images=photo.jpg, images=a_folder or 'images=photos/*.jpg'")
    from clipadapt.data.given_images import find_images

    return find_images(given)


def read_switch(found: Mapping[str, str], key: str) -> bool:
    """Return whether a key is true; it isn't where it isn't given.

    Raises:
        UserError: it is neither true nor false.
    """
    given = found.get(key, "false").lower()
    if given not in ("true", "false"):
        raise UserError(f"{key}={shorten(given)} does not fit: it must be true or false")
    return given == "true"


def read_share(key: str, text: str) -> float:
    """Return the number of `reject=` or `coverage=`.

    Raises:
        UserError: it is no number above 0 and below 1.
    """
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(f"{key}={shorten(text)} does not fit: it must be a number above 0 and below 1")
    return share


def make_choices(
    known: "KnownScores | None", probabilities: "Tensor", names: Sequence[str], shares: Mapping[str, float]
) -> "Choices":
    """Return which images are none of the classes, and their sets of classes, as far as that was asked for."""
    from clipadapt.report.predictions import Choices

    rejected = known.reject(probabilities, shares["reject"]).tolist() if known and "reject" in shares else None
    sets = known.sets(probabilities, shares["coverage"], names) if known and "coverage" in shares else None
    return Choices(rejected, sets)


def show(
    form: str,
    paths: Sequence[str],
    names: Sequence[str],
    probabilities: "np.ndarray",
    errors: Mapping[str, str],
    choices: "Choices",
) -> None:
    """Print predictions: a table of the most probable classes, or CSV or JSON with all; errors in their rows."""
    from clipadapt.report import predictions

    if form == "table":
        make_console().print(predictions.predictions_table(paths, names, probabilities, errors, choices))
        return
    write = {"csv": predictions.predictions_csv, "json": predictions.predictions_json}[form]
    print_out(write(paths, names, probabilities, errors, choices).rstrip("\n"))


def show_answers(form: str, paths: Sequence[str], answers: Sequence[Any], errors: Mapping[str, str]) -> None:
    """Print predictions that are not classes, as a table, CSV or JSON; errors in their rows."""
    from clipadapt.report import predictions

    if form == "table":
        make_console().print(predictions.answers_table(paths, answers, errors))
        return
    write = {"csv": predictions.answers_csv, "json": predictions.answers_json}[form]
    print_out(write(paths, answers, errors).rstrip("\n"))


def list_runs(words: Words) -> None:
    """Run `clipadapt list [folder=outputs]`: a table of the runs below a folder."""
    from clipadapt.cli import finished

    finished.list_runs(plain_settings(words, ("folder",), "clipadapt list folder=outputs").get("folder", "outputs"))


def show_run(words: Words) -> None:
    """Run `clipadapt show run=DIR`: the plan and the figures of a finished run."""
    from clipadapt.cli import finished

    finished.show_run(find_run_directory(plain_settings(words, ("run",), "clipadapt show run=DIR"), "show"))


def show_mistakes(words: Words) -> None:
    """Run `clipadapt mistakes run=DIR`: the test images that a finished run answers wrongly."""
    from clipadapt.cli import finished

    directory = find_run_directory(plain_settings(words, ("run",)), "mistakes")
    finished.show_mistakes(directory, words.options.get("--config-dir"))


def pack(words: Words) -> None:
    """Run `clipadapt pack run=DIR out=FOLDER`: write what a run learned as a folder for others."""
    found = plain_settings(words, ("run", "out", "pretrained"), "clipadapt pack run=DIR out=FOLDER")
    directory = find_run_directory(found, "pack")
    if not found.get("out"):
        raise UserError(f"say where to: clipadapt pack run={directory} out=my_model")
    out = checked_path(found["out"], "out")
    check_free(out)
    load(directory, words, found).save_pretrained(out)
    print_out(f"Packed in {out}: clipadapt predict run={out} images=… answers with it.")


def push(words: Words) -> None:
    """Run `clipadapt push run=DIR repo=user/name [private=true] [revision=…] [message=…]`: write it to the hub."""
    known = ("run", "repo", "private", "revision", "message", "pretrained")
    found = plain_settings(words, known, "clipadapt push run=DIR repo=user/name")
    directory = find_run_directory(found, "push")
    if not is_repository(found.get("repo", "")):
        raise UserError(f"say which repository: clipadapt push run={directory} repo=user/name")
    private = read_switch(found, "private") if "private" in found else None
    options = {"revision": found.get("revision"), "commit_message": found.get("message")}
    print_out(load(directory, words, found).push_to_hub(found["repo"], private=private, **options))


def load(directory: Path, words: Words, found: Mapping[str, str]) -> "Predictor":
    """Load the predictor of a run, with the folder and the weights that the words name."""
    from clipadapt import api

    folder = words.options.get("--config-dir")
    return api.load(directory, config_dir=folder, pretrained=found.get("pretrained"))


def methods(words: Words) -> None:
    """Run `clipadapt methods`: list all methods, one line each with its paper."""
    plain_settings(words, ())
    found = config.methods(words.options.get("--config-dir"))
    width = max(len(method["name"]) for method in found)
    for method in found:
        paper = method["paper"] or method["title"] or "(no paper given)"
        print_out(f"{method['name']:{width}}  {paper}" + (f", arXiv {method['arxiv']}" if method["arxiv"] else ""))
