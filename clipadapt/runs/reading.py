"""Files of a run, read and checked: damage is told before anything is used."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from clipadapt.checksums import damage_as_user_error, read_json
from clipadapt.errors import UserError
from clipadapt.files import check_free
from clipadapt.plain_yaml import read_plain_yaml
from clipadapt.runs import records
from clipadapt.runs.manifest import check_files, how_to_mend

NEEDED = CONFIG, RESULT, RECORD, TENSORS, METRICS = (
    "config.yaml",
    "result.json",
    "record.json",
    "adaptation.safetensors",
    "metrics.jsonl",
)
PREDICTIONS, PREDICTIONS_CSV, PICTURES, TRANSFER = "predictions.json", "predictions.csv", "pictures", "transfer"
MISTAKES_PAGE, MISTAKES_CSV, EXPLAIN = "mistakes.html", "mistakes.csv", "explain"
"""Predictions: by test set the class names, the labels, and what zero-shot and adapted predict for each image; the CSV
is for people, and not read. Transfer: a folder of metrics on other data. Explain: one of tables and pictures."""

LATER_TASK = {"bands": None, "value_range": None}
"""Settings below `task` that runs of before lack, with the values that say what those runs did."""


def check_new_folder(folder: Path) -> None:
    """Check that a folder for others can be written: nothing is there, and it isn't inside a run's own directory.

    Raises:
        UserError: something is there, or a run's directory is above it.
    """
    check_free(folder)
    for above in folder.absolute().parents:
        if (above / CONFIG).is_file() and (above / METRICS).is_file():
            raise UserError(f"{folder} is inside the run {above}, which holds what a run writes alone: choose another")


class RunReader:
    """Reads the files of a run.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def finished(self) -> bool:
        """Return whether the run is finished.

        Raises:
            UserError: the directory can't be read.
        """
        return self._has(RESULT)

    def _has(self, name: str) -> bool:
        try:
            return (self.path / name).is_file()
        except OSError as error:
            raise UserError(f"the run directory {self.path} can't be read: {error.strerror}") from error

    def config(self) -> dict[str, Any]:
        """Return the run's settings as they are written: plain values, of which nothing is known yet.

        Raises:
            UserError: there are none, or something else than plain values.
        """
        self._check_file(CONFIG)
        found = read_plain_yaml(self.path / CONFIG)
        if isinstance(found.get("task"), dict):
            found["task"] = {**LATER_TASK, **found["task"]}
        return found

    def check_files(self) -> None:
        """Check all files of a finished run against its manifest.

        Raises:
            UserError: the run isn't finished, or a file is damaged or missing.
        """
        self._check_file(RESULT)
        check_files(self.path, NEEDED)

    def record(self) -> dict[str, Any]:
        """Return the run's task, backbone, plan and versions.

        Raises:
            UserError: the file can't be read, or lacks what a record has.
        """
        with damage_as_user_error(self.path / RECORD, how_to_mend(self.path)):
            return records.check_record(read_json(self.path / RECORD))

    def result(self) -> dict[str, Any]:
        """Return the run's metrics.

        Raises:
            UserError: the run isn't finished, the file can't be read, or lacks what a result has.
        """
        self._check_file(RESULT)
        with damage_as_user_error(self.path / RESULT, how_to_mend(self.path)):
            return records.check_result(read_json(self.path / RESULT))

    def history(self) -> list[dict[str, float]]:
        """Return loss, accuracy and learning rate of each epoch.

        Raises:
            UserError: the file can't be read, or lacks what a history has.
        """
        with damage_as_user_error(self.path / METRICS, how_to_mend(self.path)):
            lines = (self.path / METRICS).read_text(encoding="utf-8").splitlines()
            return records.check_history([json.loads(line) for line in lines])

    def predictions(self) -> dict[str, Any]:
        """Return the predictions by test set, as of PREDICTIONS.

        Raises:
            UserError: the file can't be read, or lacks what predictions have.
        """
        with damage_as_user_error(self.path / PREDICTIONS, how_to_mend(self.path)):
            return records.check_predictions(read_json(self.path / PREDICTIONS))

    def tensors(self) -> dict[str, Tensor]:
        """Return the learned tensors by name.

        Raises:
            UserError: the file can't be read.
        """
        with damage_as_user_error(self.path / TENSORS, how_to_mend(self.path)):
            return load_file(self.path / TENSORS)

    def _check_file(self, name: str) -> None:
        if not self._has(name):
            if not self.path.is_dir():
                raise UserError(f"there is no run directory {self.path}")
            if not self._has(CONFIG):
                raise UserError(
                    f"{self.path} holds no run: run= is the directory of one, which `clipadapt list folder=outputs` "
                    "shows (images= are the images to answer)"
                )
            raise UserError(
                f"{self.path} is no finished run: it has no {name}; give the command of the run again to finish it"
            )
