"""A finished run that the tests of `serve`, `demo` and `explain` share: CoOp, two steps, with validation images."""

import tempfile
from functools import cache
from pathlib import Path

from clipadapt.cli import main

DATA = ("data=drawn", "data.train_per_class=6", "data.validation_per_class=2", "data.test_images=24", "shots=2")
FIT = ("method=coop", "engine.max_steps=2", "engine.workers=0", "engine.cpu=true", "engine.cache=null")
FOLDER = tempfile.TemporaryDirectory(prefix="clipadapt-shown-")
"""It goes with the process."""


@cache
def shown_run() -> Path:
    """The directory of the run."""
    assert main([*DATA, *FIT, f"output={FOLDER.name}"]) == 0
    (result,) = Path(FOLDER.name).rglob("result.json")
    return result.parent
