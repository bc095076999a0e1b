"""Run commands again and again, each time from files that a kill or a full disk has left.

`python -m tests.faults.forked` reads a job in JSON from stdin and writes a report to stdout. It does a run once, so
that all is imported; every other one is a forked process, which begins there. What pictures show isn't drawn.

A killed process leaves the files as they are before the call, so one run copies them before each of its calls. The
same files need the command once more only once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import traceback
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from clipadapt.backbone import tiny
from clipadapt.cli import main
from clipadapt.console import run_command
from clipadapt.runs.directory import CONFIG, METRICS, PREDICTIONS, TENSORS, TRANSFER, RunDirectory
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.run import run as run_in_directory
from clipadapt.runs.targets import EvaluationTarget
from tests.faults.calls import Calls

EXACT = {CONFIG, TENSORS, METRICS, PREDICTIONS}
"""Files of a run that hold the same whenever it is computed; so do those of figures on other data."""
VALUES = {"result.json", "rows.json", "choice.json"}
"""Files of a run, a study and a choice that hold the same but for times, and checksums over these."""
TIMINGS = {"seconds", "fit_seconds", "peak_memory_mb", "sha256"}
READING = {"evaluate", "transfer"}
"""Commands whose output has no times in it, and is the same each time."""


def run_forked(words, root, at=0, kill=True, copies=None):
    """Run a command in a process of its own; return its exit code, what it wrote, and how many calls it made."""
    return fork(lambda: command(words), root, at, kill, copies)


def command(words):
    """Run a command; `RUN=DIR` stands for the finished run below DIR, `transfer` for its figures on other data."""
    words = [f"run={run_below(word.removeprefix('RUN='))}" if word.startswith("RUN=") else word for word in words]
    return main(words) if words[0] != "transfer" else run_command(lambda: transfer(words[1].removeprefix("run=")))


def run_below(folder):
    """Return the only finished run below a folder."""
    (result,) = Path(folder).rglob("result.json")
    return result.parent


def transfer(run):
    """Evaluate a finished run on two other test sets, as recipes do, which show it first, and write the figures."""
    config = RunDirectory(run).config()
    run_in_directory(config, Path(run), Console(quiet=True))
    data = config["data"]
    targets = [EvaluationTarget(f"other {size}", {**data, "test_images": size}) for size in (12, 14)]
    sys.stdout.write(json.dumps(FinishedRun(run).evaluate_targets(targets, Console(quiet=True))))
    return 0


def fork(action, root, at=0, kill=True, copies=None):
    """Call a function that returns an exit code in a process of its own; return as `run_forked`."""
    log, count = Path(root, "log"), Path(root, "count")
    count.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        code, file = 1, log.open("w")
        sys.stdout = sys.stderr = file
        calls = Calls(Path(root, "work"), at, kill, copies)
        try:
            code = action()
        except BaseException:
            file.write(traceback.format_exc())
        calls.at, calls.copies = -1 if kill else sys.maxsize, None
        file.close()
        count.write_text(str(calls.count))
        os._exit(code)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(), int(count.read_text()) if count.exists() else None


def contents(folder):
    """Return what the files below a folder hold, without times: by path a hash, or for the rest that there is one."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if path.name in VALUES:
            data = json.dumps(without_times(json.loads(data))).encode()
        elif path.name not in EXACT and path.parent.name != TRANSFER:
            data = b""
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def without_times(value):
    """Return a value of JSON without times, however deep they stand in it."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMINGS}
    return [*map(without_times, value)] if isinstance(value, list) else value


def state(folder):
    """Return a hash of all files below a folder but for who holds a lock, and of the folders."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = b"" if path.is_dir() or path.suffix == ".lock" else path.read_bytes()
        found.update(f"{path.relative_to(folder)}\0{path.is_dir()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def fails(words, root, start, calls):
    """Fail each of some calls of a command for want of room on the disk; yield the call's number and what is wrong."""
    work = Path(root, "work")
    for at in calls:
        replace(work, start)
        code, log, _ = run_forked(words, root, at, kill=False)
        sentence = code == 0 or (code == 2 and "No space left" in log)
        half = [str(path) for path in work.glob("out/**/*.part")]
        yield at, [] if sentence and "Traceback" not in log and not half else [[at, "no sentence", code, log, half]]


def kills(words, root, start, calls):
    """Leave the files as a kill before each of some calls of a command does; yield the call's number, and nothing."""
    work, copies = Path(root, "work"), Path(root, "copies")
    replace(work, start)
    run_forked(words, root, copies=copies)
    for at in calls:
        replace(work, copies / str(at))
        yield at, []


def replace(folder, by):
    """Replace a folder by a copy of another one."""
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


def prepare(words, before, root):
    """Run commands once in this process, so that all is imported, and the embedded backbone's weights are there."""
    work, weights = Path(root, "work"), tiny.weights()
    work.mkdir(parents=True)
    tiny.weights = lambda: dict(weights)
    os.environ["CLIPADAPT_CACHE"] = str(work / "cache")
    Figure.savefig = lambda figure, file, **options: file.write(b"a picture")
    with contextlib.redirect_stdout(sys.stderr):
        main([word.replace(str(work), str(Path(root, "once"))) for word in before or words])


def study(words, root, kill, every=1, first=1, before=(), cached=False):
    """Run a command, end or fail it at every so many of its calls, and run it again from all that this leaves.

    Args:
        words: the command, as of `command`; OUT stands for its output and CACHE for its cache.
        root: a folder for all of it.
        kill: as of `Calls`.
        every: take only each of so many calls.
        first: the call to begin with.
        before: a command that is finished before each run, whose output is kept.
        cached: whether what the whole run has cached stays there for the others.
    """
    work, start = Path(root, "work"), Path(root, "start")
    words, before = (
        [word.replace("OUT", str(work / "out")).replace("CACHE", str(work / "cache")) for word in some]
        for some in (words, before)
    )
    prepare(words, before, root)
    if before:
        assert run_forked(before, root)[0] == 0, Path(root, "log").read_text()
    shutil.copytree(work, start)
    code, log, total = run_forked(words, root)
    assert code == 0, log
    reads = words[0] in READING
    expected, problems, taken, seen = (contents(work / "out"), log if reads else ""), [], 0, set()
    if cached:
        shutil.copytree(work / "cache", start / "cache", dirs_exist_ok=True)
        replace(work, start)
        total = run_forked(words, root)[2]
    for at, wrong in (kills if kill else fails)(words, root, start, range(first, total + 1, every)):
        taken, problems = taken + 1, problems + wrong
        if (now := state(work)) in seen:
            continue
        seen.add(now)
        code, log, _ = run_forked(words, root)
        found = (contents(work / "out") if code == 0 else {}, log if reads or code else "")
        if found != expected:
            differing = sorted({*found[0].items()} ^ {*expected[0].items()})
            problems.append([at, "another result", code, differing, log])
        sys.stderr.write(f"{at} of {total}, {len(seen)} states\n")
    return {"calls": total, "taken": taken, "states": len(seen), "problems": problems}


if __name__ == "__main__":
    job = json.load(sys.stdin)
    sys.stdout.write(json.dumps(study(**job)))
