"""Launch of one run or a Hydra sweep from the command line, with all settings checked before the first run starts."""

import functools
import inspect
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from clipadapt.cli.searches import (
    FOUND,
    MAXIMIZE,
    NoObjective,
    check_search,
    is_search,
    list_bounds,
    objective,
    show_best,
    with_params,
)
from clipadapt.cli.signals import stop_on_signals
from clipadapt.cli.slurm import explain_job, watched_jobs
from clipadapt.cli.sweeps import Choices, cover, list_choices, show_sweep
from clipadapt.config.check import check
from clipadapt.config.composing import (
    CONFIG,
    LAUNCHER,
    gather,
    normal,
    overridden_key,
    raise_all,
    to_container,
    with_absolute_paths,
)
from clipadapt.config.overrides import Words, split
from clipadapt.config.tree import conf_dir, own_folder
from clipadapt.console import print_out, run_command
from clipadapt.errors import LASTING, UserError, WriteError, nearest
from clipadapt.studies.protocols import Study, study
from clipadapt.threads import shared_cores, shorten_waits

RECIPE = """\
Words are those of `clipadapt compare`: methods=[…] data=[…] shots=[…] seed=[…], settings of all runs as key=value,
--config-dir DIR; and targets=[…], data sets that each run is tested on beside its own, corruptions=[…] severities=[…].
What isn't given stands in conf/recipe/{name}.yaml; severities that don't stand there either are all five.

Every run has its own directory, so that a stopped study goes on where it was and a larger one computes what is missing.
Tables (Markdown, LaTeX), curves and results.csv, a row for each run and test set, go to outputs/{name}/.
"""
ALONE = {"--run", "--multirun", "--cfg", "--info", "--shell-completion"}
"""Options of which a command line has at most one."""

SHELL_VERBS = ("install", "uninstall", "query")
CFG = ("job", "hydra", "all")
"""Values of `--cfg`."""

SHOWING = {"--shell-completion", "--hydra-help", "--version", "--info"}


Task = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Called with the plain settings of a run; returns its metrics."""


def launch(task: Task, arguments: Sequence[str]) -> None:
    """Parse a command line, check all of it, and call the task for each run.

    Args:
        task: does a run.
        arguments: the words after the program's name: settings, and Hydra's options (`-m`, `--cfg job`, …).

    Raises:
        UserError: a list of all problems with the words, or an error of the task.
    """
    words = split(arguments)
    words.settings = normal(words.settings)
    folder = words.options.get("--config-dir")
    own_folder(folder)
    launchers = [text for text in words.settings if text.startswith(f"{LAUNCHER}=")]
    if launchers and "--multirun" not in words.options and "--cfg" not in words.options:
        raise UserError(f"{launchers[0]} is for the runs of a sweep: add -m")
    check_options(words)
    if is_search(words.settings):
        check_search(words.settings, "--multirun" in words.options)
        words.settings = with_params(words.settings, folder)
    if "--hydra-help" in words.options:
        words = Words({"--hydra-help": None})
    if SHOWING & {*words.options}:
        raise_all([] if "--shell-completion" in words.options else gather(words.settings, folder)[1])
        hand_over(task, words)
        return
    list_values = list_bounds if is_search(words.settings) else list_choices
    choices = list_values(words.settings, folder) if "--multirun" in words.options else None
    problems = []
    for settings in [words.settings] if choices is None else cover(choices):
        config, found = gather(settings, folder)
        problems += [*found, *check_package(words, config)] if "--cfg" in words.options else [*found, *check(config)]
    raise_all(problems)
    if choices is None and "--cfg" not in words.options and not any(map(is_of_hydra, words.settings)):
        task(with_absolute_paths(config))
    elif choices is None:
        hand_over(task, words)
    else:
        sweep(task, words, choices, launchers[-1].partition("=")[2] if launchers else None)
    if launchers:
        print_out(f"Runs are in {config['output']}; what the jobs said, in {config['output']}/.submitit")


def is_of_hydra(text: str) -> bool:
    """Return whether a word is a setting of Hydra's own, such as `hydra/launcher=slurm`, which Hydra has to read."""
    return overridden_key(text).partition(".")[0].partition("/")[0] == "hydra"


def check_options(words: Words) -> None:
    """Check that the options of a command line fit together and have values that Hydra knows.

    Raises:
        UserError: a list of all problems.
    """
    options = words.options
    if {"--cfg", "--multirun"} <= {*options}:
        raise UserError("--cfg shows the settings of one run: leave out -m")
    together = [name for name in options if name in ALONE]
    problems = [f"{' and '.join(together)} can't be given together"] if len(together) > 1 else []
    if "--shell-completion" in options and not any(text.partition("=")[0] in SHELL_VERBS for text in words.settings):
        problems.append(f"--shell-completion needs one of {', '.join(f'{verb}=bash' for verb in SHELL_VERBS)}")
    if (shown := options.get("--cfg", "job")) not in CFG:
        problems.append(f"--cfg {shown}: {nearest(str(shown), CFG)}")
    if "--package" in options and "--cfg" not in options:
        problems.append("--package is a part of the settings that --cfg shows: add --cfg job")
    raise_all(problems)


def check_package(words: Words, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem if `--package` names no part of the settings of the run that `--cfg job` shows."""
    package = words.options.get("--package")
    if package is None or package == "_global_" or words.options["--cfg"] != "job":
        return
    node: Any = config
    for name in package.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    if node is None:
        yield f"--package {package}: there is no such part of the settings; {nearest(package, config)}"


def sweep(task: Task, words: Words, choices: Choices, launcher: str | None) -> None:
    """Do the runs of a sweep and show the table of their results, also if some of them failed.

    Args:
        task: does a run.
        words: the words of the command line.
        choices: the settings of the sweep, from `list_choices`.
        launcher: name of the launcher; None for one run after another in this process.

    Raises:
        UserError: errors of the runs.
    """
    runs = math.prod(map(len, choices))
    failure: Exception | None = None
    with ExitStack() as during:
        if launcher == "processes":
            during.enter_context(shared_cores(runs))
        if launcher == "slurm":
            during.enter_context(watched_jobs())
        try:
            hand_over(task, words)
        except Exception as error:  # raised again below the table
            failure = explain_job(error)
    if not is_search(words.settings):
        show_sweep(choices, words.options.get("--config-dir"))
    if failure is not None:
        raise failure


def hand_over(task: Task, words: Words) -> None:
    """Start the runs through Hydra; errors of single runs of a sweep are raised after the last run."""
    searching, folder = is_search(words.settings), words.options.get("--config-dir")
    own_process = os.getpid()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors of a launcher's processes arrive here unchanged
    user_errors: list[UserError] = []
    crashes: list[Exception] = []

    def job(composed: DictConfig) -> float | None:
        if crashes or any(isinstance(error, (*LASTING, NoObjective)) for error in user_errors):
            return None
        try:
            config = to_container(composed, folder)
            raise_all(check(config))
            metrics = task(with_absolute_paths(config))
            return objective(metrics) if searching else None
        except Exception as error:  # raised below: Hydra would cut its traceback
            if os.getpid() != own_process:  # a launcher's process can report an error only by raising it
                raise
            (user_errors if isinstance(error, UserError) else crashes).append(error)  # type: ignore[arg-type]
            return None

    # Hydra writes its record of a sweep to a folder, which must not be among the runs.
    first = [MAXIMIZE] if searching else []
    with temporary_folder() as temporary, command_line(words.for_hydra(f"hydra.sweep.dir={temporary}", *first)):
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG)(job)()
            if searching:
                show_best(Path(temporary, FOUND), words.settings, folder)
        except SystemExit as end:  # Hydra ends the program after showing something
            if end.code:
                raise UserError(f"Hydra can't show that ({' '.join(words.for_hydra())})") from end
        except RuntimeError as error:
            if "srun" not in str(error):
                raise
            raise UserError("hydra/launcher=slurm needs SLURM: give the command on a machine of the cluster") from error
        except ValueError:  # of a search in which no run has a figure
            if not (crashes or user_errors):
                raise
    for crash in crashes:
        raise crash
    if len(user_errors) == 1:
        raise user_errors[0]
    raise_all(str(error) for error in user_errors)


@contextmanager
def temporary_folder() -> Iterator[str]:
    """Make a folder that is removed at the end.

    Raises:
        WriteError: it, or a file that Hydra writes to it, can't be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except OSError as error:
        place = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
        if error.filename is not None and not str(error.filename).startswith(place):
            raise
        reason = error.strerror or error
        raise WriteError(f"temporary files can't be written ({reason}): set TMPDIR to a folder with room") from error


@contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Replace the words after the program's name in `sys.argv`, which Hydra reads."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def protocol(name: str) -> Callable[[Callable[[Study], None]], Callable[[], None]]:
    """Decorate a function as the recipe of a protocol: a program that gets the study of its YAML and command line.

    The YAML, conf/recipe/<name>.yaml, has the lists of the grid (`methods`, `data`, `shots`, `seed`), the `targets` and
    `corruptions`, on which all runs are evaluated beside their own test sets, and `settings` of all runs. Words of the
    command line override the YAML. `--help` prints the function's docstring.
    """

    def decorate(function: Callable[[Study], None]) -> Callable[[], None]:
        def start() -> int:
            words = split(sys.argv[1:])
            if "--help" in words.options:
                sys.stdout.write(f"{inspect.getdoc(function)}\n\n{RECIPE.format(name=name)}")
                return 0
            raise_all(f"{option} has no meaning here" for option in words.options if option != "--config-dir")
            function(study(name, words.settings, words.options.get("--config-dir")))
            return 0

        @functools.wraps(function)
        def program() -> None:
            shorten_waits()
            with stop_on_signals():
                code = run_command(start)
            sys.exit(code)

        return program

    return decorate
