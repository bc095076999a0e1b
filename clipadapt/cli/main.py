"""The command line, with a function for each command. PyTorch is imported only after the settings are checked."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipadapt import __version__, config
from clipadapt.cli import data as data_command
from clipadapt.cli import launching
from clipadapt.cli import serving as serving_commands
from clipadapt.cli.exporting import export
from clipadapt.cli.help import COMMANDS, help_for
from clipadapt.cli.keys import find_run_directory, load, plain_settings, read_switch
from clipadapt.cli.listing import methods
from clipadapt.cli.predicting import predict
from clipadapt.cli.signals import stop_on_signals
from clipadapt.config.grids import GRID_KEYS, read_lists
from clipadapt.config.overrides import Words, split
from clipadapt.console import finished_work, is_main_process, make_console, print_out, run_command
from clipadapt.errors import UserError, nearest
from clipadapt.files import check_new_file, write_atomically
from clipadapt.paths import checked_path, shorten
from clipadapt.studies.grid import ALL, DEFAULT_MINUTES, check_minutes, grid, write_list
from clipadapt.studies.protocols import comparison
from clipadapt.threads import shorten_waits

AUTO = "method=auto"
"""The word that makes `clipadapt choose` of `clipadapt fit`."""


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
            "export": export,
            "list": list_runs,
            "show": show_run,
            "mistakes": show_mistakes,
            "pack": pack,
            "push": push,
            "methods": methods,
            "data": data_command.run,
            "serve": serving_commands.serve,
            "demo": serving_commands.demo,
            "explain": serving_commands.explain,
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
        stop.args = (finished_work(directory),)
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
    named = given.get("methods", [ALL]) != [ALL]
    runs = grid(given if named else given | {"methods": config.few_shot_methods(folder)}, overrides, folder)
    from clipadapt.studies.candidates import needs_more  # imports PyTorch
    from clipadapt.studies.choice import choose_in_directory

    usable = runs if named else [one for one in runs if not needs_more(one.config)]
    choose_in_directory(usable, minutes, make_console(), began)


def evaluate(words: Words) -> None:
    """Run `clipadapt evaluate run=DIR [data=… classes=… output=FILE]`: on a run's own test sets or other data."""
    data = [word for word in words.settings if _of_other_data(word.partition("=")[0].lstrip("+"))]
    rest = Words(words.options, [word for word in words.settings if word not in data])
    known = ("run", "data", "classes", "output", "pretrained")
    found = plain_settings(rest, known, "clipadapt evaluate run=DIR data=NAME")
    directory = find_run_directory(found, "evaluate")
    if data and "data" not in found:
        raise UserError(f"say which data first: data=folder {' '.join(data)}")
    if "classes" in found and "data" not in found:
        raise UserError("classes= says which classes compete on other data: name them with data=…")
    folder = words.options.get("--config-dir")
    chosen = config.compose([f"data={found['data']}", *data], folder) if "data" in found else None
    output = find_figures_file(found["output"]) if "output" in found else None
    from clipadapt.runs.competing import check_competing
    from clipadapt.runs.finished import evaluate_finished

    other: dict[str, Any] = {"pretrained": found.get("pretrained")}
    if chosen is not None:
        other |= {"data": chosen["data"], "skip_broken": chosen["task"]["skip_broken"]}
    other |= {"classes": check_competing(found["classes"])} if "classes" in found else {}
    figures = evaluate_finished(directory, console=make_console(), config_dir=folder, **other)
    if output is not None and is_main_process():
        of = {"run": str(directory), "data": other.get("data"), "classes": other.get("classes", "data")}
        found = json.loads(json.dumps(of | figures), parse_constant=lambda _: None)  # JSON knows no NaN
        write_atomically(output, json.dumps(found, indent=2) + "\n")
        print_out(f"The figures: {output}")


def find_figures_file(text: str) -> Path:
    """Return the file that `output=` names for the figures of an evaluation.

    Raises:
        UserError: it doesn't end in .json, is there, or can't be written.
    """
    path = checked_path(text, "output")
    if path.suffix.lower() != ".json":
        raise UserError(f"output={shorten(text)} doesn't end in .json, the format of the figures")
    check_new_file(path, "output")
    return path


def _of_other_data(key: str) -> bool:
    """Return whether a key of `clipadapt evaluate` is a setting of the other data."""
    return key.startswith("data.") or key == "task.skip_broken"


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
    from clipadapt.runs.reading import check_new_folder  # imports PyTorch

    out = checked_path(found["out"], "out")
    check_new_folder(out)
    load(directory, words, found).save_pretrained(out)
    print_out(f"Packed in {out}: clipadapt predict run={out} images=… answers with it.")


def push(words: Words) -> None:
    """Run `clipadapt push run=DIR repo=user/name [private=true] [revision=…] [message=…]`: write it to the hub."""
    known = ("run", "repo", "private", "revision", "message", "pretrained")
    found = plain_settings(words, known, "clipadapt push run=DIR repo=user/name")
    directory = find_run_directory(found, "push")
    from clipadapt.runs.model_hub import is_repository  # imports NumPy

    if not is_repository(found.get("repo", "")):
        given = f", and repo={shorten(found['repo'])} is none" if found.get("repo") else ""
        raise UserError(f"say which repository{given}: clipadapt push run={directory} repo=user/name")
    private = read_switch(found, "private") if "private" in found else None
    options = {"revision": found.get("revision"), "commit_message": found.get("message")}
    print_out(load(directory, words, found).push_to_hub(found["repo"], private=private, **options))
