"""Run commands again and again, each time ended or failed by another of its calls to the file system.

`python -m tests.faults.forked` reads a job in JSON from stdin and writes a report to stdout. It does a run once, so
that all is imported; every other one is a forked process, which begins there. Calls are counted by Python's audit
events, those of `os.fsync` and of the writing of shards, which have no event, by functions put in their place. What
pictures show isn't drawn.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from clipadapt.cli import main
from clipadapt.console import run_command
from clipadapt.features import cache
from clipadapt.runs.directory import CONFIG, METRICS, PREDICTIONS, TENSORS, TRANSFER, RunDirectory
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.targets import EvaluationTarget

EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EXACT = {CONFIG, TENSORS, METRICS, PREDICTIONS}
"""Files of a run that hold the same whenever it is computed; so do those of figures on other data."""
TIMINGS = {"seconds", "fit_seconds", "peak_memory_mb"}
READING = {"evaluate", "transfer"}
"""Commands whose output has no times in it, and is the same each time."""


class Calls:
    """Counts the calls that change files below a folder, and acts at one of them.

    Args:
        root: the folder.
        at: number of the call, from 1.
        kill: whether the process is killed before this call; else the disk is full from this call on.
    """

    def __init__(self, root, at, kill):
        self.root, self.at, self.kill = str(root), at, kill
        self.count = 0
        for owner, name in ((os, "fsync"), (cache, "save_file")):
            setattr(owner, name, self.counted(getattr(owner, name)))
        sys.addaudithook(self.hook)

    def counted(self, function):
        """Return a function that counts itself before it does what it did."""

        def call(*arguments):
            self.call(growing=True)
            return function(*arguments)

        return call

    def hook(self, event, arguments):
        """Count an audit event, if it changes a file below the folder."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, os.PathLike)) and str(path).startswith(self.root) and flags & WRITES:
                self.call(growing=True)
        elif event in EVENTS and (isinstance(arguments[0], int) or str(arguments[0]).startswith(self.root)):
            self.call(growing=event in ("os.mkdir", "os.rename"))

    def call(self, growing):
        """Count a call; kill the process before it, or fail it if it needs room on the disk."""
        self.count += 1
        if self.kill and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.kill and self.count >= self.at and growing:
            raise OSError(28, "No space left on device")


def run_forked(words, root, at=0, kill=True):
    """Run a command in a process of its own; return its exit code, what it wrote, and how many calls it made."""
    return fork(lambda: command(words), root, at, kill)


def command(words):
    """Run a command; `RUN=DIR` stands for the finished run below DIR, `transfer` for its figures on other data."""
    words = [f"run={run_below(word.removeprefix('RUN='))}" if word.startswith("RUN=") else word for word in words]
    return main(words) if words[0] != "transfer" else run_command(lambda: transfer(words[1].removeprefix("run=")))


def run_below(folder):
    """Return the only finished run below a folder."""
    (result,) = Path(folder).rglob("result.json")
    return result.parent


def transfer(run):
    """Evaluate a finished run on two other test sets, as recipes do, and show the figures."""
    data = RunDirectory(run).config()["data"]
    targets = [EvaluationTarget(f"other {size}", {**data, "test_images": size}) for size in (12, 14)]
    sys.stdout.write(json.dumps(FinishedRun(run).evaluate_targets(targets, Console(quiet=True))))
    return 0


def fork(action, root, at=0, kill=True):
    """Call a function that returns an exit code in a process of its own; return as `run_forked`."""
    log, count = Path(root, "log"), Path(root, "count")
    count.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        code, file = 1, log.open("w")
        sys.stdout = sys.stderr = file
        calls = Calls(Path(root, "work"), at, kill)
        try:
            code = action()
        except BaseException:
            file.write(traceback.format_exc())
        calls.at = -1 if kill else sys.maxsize
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
        if path.name == "result.json":
            data = json.dumps({key: value for key, value in json.loads(data).items() if key not in TIMINGS}).encode()
        elif path.name not in EXACT and path.parent.name != TRANSFER:
            data = b""
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def study(words, root, kill, every=1, first=1, before=(), cached=False):
    """Run a command, end or fail it at every so many of its calls, and run it again each time.

    Args:
        words: the command, as of `command`; OUT stands for its output and CACHE for its cache.
        root: a folder for all of it.
        kill: as of `Calls`.
        every: take only each of so many calls.
        first: the call to begin with.
        before: a command that is finished before each run, whose output is kept.
        cached: whether what the whole run has cached stays there for the others.
    """
    work, out = Path(root, "work"), Path(root, "work", "out")
    words, before = (
        [word.replace("OUT", str(out)).replace("CACHE", str(Path(root, "work", "cache"))) for word in some]
        for some in (words, before)
    )
    start = Path(root, "start")
    work.mkdir(parents=True)
    os.environ["CLIPADAPT_CACHE"] = str(Path(root, "work", "cache"))
    Figure.savefig = lambda figure, file, **options: file.write(b"a picture")
    with contextlib.redirect_stdout(sys.stderr):
        main([word.replace(str(work), str(Path(root, "once"))) for word in before or words])
    if before:
        assert run_forked(before, root)[0] == 0, Path(root, "log").read_text()
    shutil.copytree(work, start)
    code, log, total = run_forked(words, root)
    assert code == 0, log
    reads = words[0] in READING
    expected, problems, taken = (contents(out), log if reads else ""), [], 0
    if cached:
        shutil.copytree(work / "cache", start / "cache", dirs_exist_ok=True)
        shutil.rmtree(work)
        shutil.copytree(start, work)
        total = run_forked(words, root)[2]
    for at in range(first, total + 1, every):
        shutil.rmtree(work)
        shutil.copytree(start, work)
        code, log, _ = run_forked(words, root, at, kill)
        taken += 1
        if kill and code != -signal.SIGKILL:
            problems.append([at, "not killed", code, log])
        if not kill and (code not in (0, 2) or "Traceback" in log or (code == 2 and "No space left" not in log)):
            problems.append([at, "no sentence", code, log])
        if not kill and [path for path in out.rglob("*") if path.suffix == ".part"]:
            problems.append([at, "half a file stays", code, log])
        code, log, _ = run_forked(words, root)
        found = (contents(out) if code == 0 else {}, log if reads or code else "")
        if found != expected:
            differing = sorted({*found[0].items()} ^ {*expected[0].items()})
            problems.append([at, "another result", code, differing, log])
    return {"calls": total, "taken": taken, "problems": problems}


if __name__ == "__main__":
    job = json.load(sys.stdin)
    sys.stdout.write(json.dumps(study(**job)))
