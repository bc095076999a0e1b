"""A run's directory: written atomically, resumed after a kill, never overwritten by another run."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from clipadapt.checksums import damage_as_user_error, read_json
from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError
from clipadapt.files import write_atomically
from clipadapt.plain_yaml import dump_plain_yaml, read_plain_yaml
from clipadapt.runs import records
from clipadapt.runs.checkpoints import Checkpoints
from clipadapt.runs.manifest import MANIFEST, check_files, how_to_mend, write_manifest

Identity = Callable[[Mapping[str, Any]], Mapping[str, Any]]
NEEDED = CONFIG, RESULT, RECORD, TENSORS, METRICS = (
    "config.yaml",
    "result.json",
    "record.json",
    "adaptation.safetensors",
    "metrics.jsonl",
)
PREDICTIONS, PICTURES, TRANSFER = "predictions.json", "pictures", "transfer"
"""Predictions: by test set the class names, the labels, and what zero-shot and adapted predict for each image.
Transfer: a folder of metrics on other data."""
OWN = (*NEEDED, MANIFEST, PREDICTIONS, PICTURES, TRANSFER)


class RunDirectory:
    """The files of one run.

    config.yaml, record.json (task, backbone, plan, versions, support indices), result.json, metrics.jsonl,
    adaptation.safetensors (the learned tensors alone), predictions.json, pictures/, manifest.json with a checksum of
    each of these; the last two checkpoints while the run is unfinished; and transfer/ with metrics on other data.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = Checkpoints(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return (self.path / RESULT).is_file()

    def open(self, config: Mapping[str, Any], identity: Identity) -> None:
        """Make the directory, or check that it holds the same run.

        Args:
            config: the run's settings.
            identity: returns the settings that two runs must share to be the same run.

        Raises:
            UserError: the directory holds something else, or the settings in it are damaged.
        """
        if (self.path / CONFIG).is_file():
            self._check_places()
            if self.finished:
                check_files(self.path, NEEDED, [CONFIG])
            self._check_same(identity(config), identity(self.config()))
            return
        if self.path.exists() and (
            not self.path.is_dir() or any(file.suffix != ".part" for file in self.path.iterdir())
        ):
            raise UserError(f"{self.path} is there and holds no run: choose another output folder, or move it away")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the run directory {self.path} can't be made: {error.strerror}; choose another output"
            ) from error
        write_atomically(self.path / CONFIG, dump_plain_yaml(dict(config)))

    def _check_places(self) -> None:
        """Check that no folder is where a file of the run will be, and no file where a folder will be."""
        for name in OWN:
            path, folder = self.path / name, name in (PICTURES, TRANSFER)
            if path.exists() and path.is_dir() != folder:
                wrong, right = ("file", "folder") if folder else ("folder", "file")
                raise UserError(f"{path} is a {wrong}, and the run has a {right} of that name: move it away")

    def _check_same(self, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        other = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        if other:
            raise UserError(
                f"{self.path} holds a run with another {other[0]} ({theirs.get(other[0])}, now {mine.get(other[0])}): "
                "choose another output folder, or move it away"
            )

    def config(self) -> dict[str, Any]:
        """Return the run's settings as they are written: plain values, of which nothing is known yet.

        Raises:
            UserError: there are none, or something else than plain values.
        """
        self._check_file(CONFIG)
        return read_plain_yaml(self.path / CONFIG)

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
        if not self.path.is_dir():
            raise UserError(f"there is no run directory {self.path}")
        if not (self.path / name).is_file():
            raise UserError(
                f"{self.path} is no finished run: it has no {name}; give the command of the run again to finish it"
            )

    def beside(self) -> "RunDirectory":
        """Return the directory beside this one in which the run is computed again."""
        return RunDirectory(self.path.with_name(f".{self.path.name}.rerun"))

    def remove(self) -> None:
        """Delete the directory, if it is there."""
        shutil.rmtree(self.path, ignore_errors=True)

    def replace_by(self, fresh: "RunDirectory") -> None:
        """Replace this run by one computed again; files that aren't the run's stay."""
        for name in {path.name for path in self.path.iterdir()} - {*OWN, *(path.name for path in fresh.path.iterdir())}:
            (self.path / name).rename(fresh.path / name)
        shutil.rmtree(self._old, ignore_errors=True)
        self.path.rename(self._old)
        fresh.path.rename(self.path)
        shutil.rmtree(self._old)

    def restore(self) -> None:
        """Put back the directory that `replace_by` had moved away when it was killed."""
        if self._old.is_dir() and not self.path.exists():
            self._old.rename(self.path)

    @property
    def _old(self) -> Path:
        return self.path.with_name(f".{self.path.name}.old")

    def remove_leftovers(self) -> None:
        """Remove the unfinished files that a killed run left, and the checkpoints beside a finished run.

        Only for the process that has opened the directory to write to it: another one's files may be on their way.
        """
        with suppress(OSError):  # somebody else's run is shown, too
            for part in self.path.rglob(".*.part"):
                part.unlink(missing_ok=True)
            if self.finished:
                self.checkpoints.remove()

    def save_checkpoint(self, progress: TrainState) -> None:
        """Save the state that training is resumed from."""
        self.checkpoints.save(progress)

    def load_checkpoint(self, device: torch.device, fingerprint: str) -> TrainState:
        """Load the state that training is resumed from; that of a new run if there is no checkpoint.

        Args:
            device: of the tensors.
            fingerprint: the task's, to detect that its images have changed.

        Raises:
            UserError: the checkpoint was trained on other images, or no checkpoint is whole.
        """
        progress = self.checkpoints.load(device) or TrainState(fingerprint=fingerprint)
        if progress.fingerprint != fingerprint:
            raise UserError(
                f"the images that {self.path} learned from have changed since it was stopped: rerun=true begins again"
            )
        return progress

    def finish(
        self,
        tensors: Mapping[str, Tensor],
        record: Mapping[str, Any],
        history: list[dict[str, float]],
        result: Mapping[str, Any],
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write all files of a finished run; the result last, so that a directory that has one is complete.

        Args:
            tensors: learned tensors by name.
            record: task, backbone, plan and versions.
            history: loss, accuracy and learning rate of each epoch.
            result: the metrics.
            files: contents of further files by their paths in the directory.
        """
        contents: dict[str, bytes | str] = {
            **(files or {}),
            TENSORS: save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}),
            RECORD: json.dumps(record, indent=2) + "\n",
            METRICS: "".join(json.dumps(row) + "\n" for row in history),
        }
        for name, content in contents.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, content)
        pictures = [path.relative_to(self.path).as_posix() for path in sorted((self.path / PICTURES).glob("*.png"))]
        last = {RESULT: json.dumps(result, indent=2) + "\n"}
        write_manifest(self.path, [CONFIG, *contents, *pictures], last)
        write_atomically(self.path / RESULT, last[RESULT])
        self.checkpoints.remove()
