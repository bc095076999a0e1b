"""A run's figures in a tracker of experiments: TensorBoard, MLflow, Weights & Biases or Trackio, through Accelerate."""

import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from accelerate import tracking
from accelerate.tracking import GeneralTracker

from clipadapt.errors import SettingsError, UserError
from clipadapt.files import write_atomically

Choice = Literal["tensorboard", "mlflow", "wandb", "trackio"]
PROJECT, FOLDER, ID_FILE = "clipadapt", "tensorboard", "tracker.json"
"""The name of all runs together; the folder of TensorBoard's files, and the file with the id of the tracker's run, both
in the run's directory."""

CLASSES = {
    "tensorboard": "TensorBoardTracker",
    "mlflow": "MLflowTracker",
    "wandb": "WandBTracker",
    "trackio": "TrackioTracker",
}


def check_tracker(choice: Choice | None) -> None:
    """Check that a tracker's package is installed; raises SettingsError."""
    try:
        _ = choice and version(choice)  # a folder of that name, as they leave behind, can be imported
    except PackageNotFoundError:
        raise SettingsError(f"engine.tracker={choice} needs {choice}: pip install 'clipadapt[{choice}]'") from None


class Tracking:
    """Sends a run's figures to a tracker, or nowhere.

    Args:
        tracker: Accelerate's, started; None in all processes but the first, and without a tracker.
    """

    def __init__(self, tracker: GeneralTracker | None = None) -> None:
        self.tracker = tracker

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Send an epoch's loss, training score and learning rate."""
        if self.tracker is not None:
            figures = {f"training/{name}": value for name, value in row.items() if name != "epoch"}
            self.tracker.log(figures, step=int(row["epoch"]))

    def log_metrics(self, metrics: Mapping[str, Any], epochs: int) -> None:
        """Send the figures on each test set, and the costs, after the last epoch."""
        if self.tracker is None:
            return
        tests = metrics["tests"]
        found = {f"{test}/{name}": value for test, figures in tests.items() for name, value in figures.items()}
        found |= {name: metrics[name] for name in ("parameters", "seconds", "peak_memory_mb")}
        self.tracker.log({clean(name): value for name, value in found.items() if math.isfinite(value)}, step=epochs)


@contextmanager
def tracked(
    choice: Choice | None, name: str, folder: Path, settings: Mapping[str, Any], done: int = 0
) -> Iterator[Tracking]:
    """Start a tracker's run, and end it with the context. Only for the first process of a job.

    Args:
        choice: the tracker; None for none.
        name: of the run.
        folder: the run's directory.
        settings: of the run, by dotted key.
        done: how many epochs were done before; if any, the tracker's run of these goes on.

    Raises:
        UserError: the tracker can't be started.
    """
    if choice is None:
        yield Tracking()
        return
    earlier = read_id(folder, choice) if done else None
    try:
        tracker = make(choice, name, folder, earlier, done)
        tracker.start()
        if earlier is None:
            tracker.store_init_configuration({key: as_parameter(value) for key, value in settings.items()})
    except Exception as error:  # of as many kinds as there are trackers
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"engine.tracker={choice} can't be started: {reason}") from error
    try:
        yield Tracking(tracker)
    finally:
        tracker.finish()


def make(choice: Choice, name: str, folder: Path, earlier: str | None, done: int) -> GeneralTracker:
    """Return a tracker that isn't started yet, of a new run or of an `earlier` one; the id of a new one is saved."""
    kind = getattr(tracking, CLASSES[choice])
    if choice == "tensorboard":
        write_id(folder, choice, FOLDER)
        return kind(FOLDER, folder, purge_step=done + 1 if done else None)
    if choice == "mlflow":
        return MLflow(folder, experiment_name=PROJECT, run_id=earlier, run_name=name)
    own = earlier or (uuid.uuid4().hex if choice == "wandb" else f"{name}-{uuid.uuid4().hex[:8]}")
    write_id(folder, choice, own)
    given = {"id": own, "name": name} if choice == "wandb" else {"name": own}
    return kind(PROJECT, resume="allow", **given)


class MLflow(tracking.MLflowTracker):
    """MLflow's tracker, which saves the id that MLflow gives to a run."""

    def __init__(self, folder: Path, **given: Any) -> None:
        super().__init__(**given)
        self.folder = folder

    def start(self) -> None:
        """Start the run."""
        super().start()
        write_id(self.folder, "mlflow", self.active_run.info.run_id)


def write_id(folder: Path, choice: Choice, own: str) -> None:
    """Save the id of a tracker's run."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / ID_FILE, json.dumps({"tracker": choice, "id": own}) + "\n")


def read_id(folder: Path, choice: Choice) -> str | None:
    """Return the id of the run that a tracker had in a directory; None if it had none."""
    try:
        found = json.loads((folder / ID_FILE).read_text(encoding="utf-8"))
        return str(found["id"]) if found["tracker"] == choice else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def as_parameter(value: Any) -> bool | int | float | str:
    """Return a setting as trackers take it: lists, tables and null as text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def clean(name: str) -> str:
    """Return the name of a figure with characters that all trackers take."""
    return re.sub(r"[^\w./ -]", "-", name)
