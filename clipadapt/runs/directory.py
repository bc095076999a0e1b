"""A run's directory: written atomically, resumed after a kill, never overwritten by another run."""

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError
from clipadapt.files import write_atomically
from clipadapt.plain_yaml import dump_plain_yaml, read_plain_yaml

Identity = Callable[[Mapping[str, Any]], Mapping[str, Any]]
CONFIG, RESULT, RECORD, TENSORS, METRICS, CHECKPOINT = (
    "config.yaml",
    "result.json",
    "record.json",
    "adaptation.safetensors",
    "metrics.jsonl",
    "checkpoint.pt",
)
PREDICTIONS, PICTURES, TRANSFER = "predictions.json", "pictures", "transfer"
"""Predictions: by test set the class names, the labels, and what zero-shot and adapted predict for each image.
Transfer: a folder of metrics on other data."""
OWN = (CONFIG, RESULT, RECORD, TENSORS, METRICS, CHECKPOINT, PREDICTIONS, PICTURES, TRANSFER)


class RunDirectory:
    """The files of one run.

    config.yaml, record.json (task, backbone, plan, versions, support indices), result.json, metrics.jsonl,
    adaptation.safetensors (the learned tensors alone), checkpoint.pt while the run is unfinished, predictions.json,
    pictures/, and transfer/ with metrics on other data.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

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
            UserError: the directory holds something else.
        """
        if (self.path / CONFIG).is_file():
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

    def record(self) -> dict[str, Any]:
        """Return the run's task, backbone, plan and versions."""
        with self._as_user_error(RECORD):
            return json.loads(self._read(RECORD))

    def result(self) -> dict[str, Any]:
        """Return the run's metrics."""
        with self._as_user_error(RESULT):
            return json.loads(self._read(RESULT))

    def history(self) -> list[dict[str, float]]:
        """Return loss, accuracy and learning rate of each epoch."""
        with self._as_user_error(METRICS):
            return [json.loads(line) for line in self._read(METRICS).splitlines()]

    def tensors(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""
        self._read(TENSORS)
        with self._as_user_error(TENSORS):
            return load_file(self.path / TENSORS)

    @contextmanager
    def _as_user_error(self, name: str) -> Iterator[None]:
        """Raise a UserError if a file turns out to be damaged."""
        try:
            yield
        except (ValueError, SafetensorError) as error:
            raise UserError(
                f"{self.path / name} is damaged ({error}): delete {self.path} and give the command of the run again"
            ) from error

    def _read(self, name: str) -> str:
        self._check_file(name)
        path = self.path / name
        return "" if path.suffix == ".safetensors" else path.read_text()

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

    def save_checkpoint(self, progress: TrainState) -> None:
        """Save the state that training is resumed from."""
        content = io.BytesIO()
        torch.save(vars(progress), content)
        write_atomically(self.path / CHECKPOINT, content.getvalue())

    def load_checkpoint(self, device: torch.device, fingerprint: str) -> TrainState:
        """Load the state that training is resumed from; that of a new run if there is no checkpoint.

        Args:
            device: of the tensors.
            fingerprint: the task's, to detect that its images have changed.

        Raises:
            UserError: the checkpoint was trained on other images.
        """
        path = self.path / CHECKPOINT
        if not path.is_file():
            return TrainState(fingerprint=fingerprint)
        progress = TrainState(**torch.load(path, map_location=device, weights_only=True))
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
        for name, content in (files or {}).items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / name, content)
        write_atomically(
            self.path / TENSORS, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
        )
        write_atomically(self.path / RECORD, json.dumps(record, indent=2) + "\n")
        write_atomically(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in history))
        write_atomically(self.path / RESULT, json.dumps(result, indent=2) + "\n")
        (self.path / CHECKPOINT).unlink(missing_ok=True)
