"""A run's directory: written atomically, resumed after a kill, never overwritten by another run."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError
from clipadapt.files import flush_folder, write_atomically
from clipadapt.plain_yaml import dump_plain_yaml
from clipadapt.runs.checkpoints import Checkpoints
from clipadapt.runs.manifest import MANIFEST, check_files, write_manifest
from clipadapt.runs.reading import (
    CONFIG,
    EXPLAIN,
    METRICS,
    MISTAKES_CSV,
    MISTAKES_PAGE,
    NEEDED,
    PICTURES,
    PREDICTIONS,
    PREDICTIONS_CSV,
    RECORD,
    RESULT,
    TENSORS,
    TRANSFER,
    RunReader,
)

Identity = Callable[[Mapping[str, Any]], Mapping[str, Any]]
OWN = (*NEEDED, MANIFEST, PREDICTIONS, PREDICTIONS_CSV, MISTAKES_PAGE, MISTAKES_CSV, PICTURES, TRANSFER, EXPLAIN)


class RunDirectory(RunReader):
    """The files of one run.

    config.yaml, record.json (task, backbone, plan, versions, support indices), result.json, metrics.jsonl,
    adaptation.safetensors (the learned tensors alone), predictions.json and .csv, pictures/, manifest.json with a
    checksum of each of these; the last two checkpoints while the run is unfinished; and transfer/ with metrics on other
    data.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.checkpoints = Checkpoints(self.path)

    def open(self, config: Mapping[str, Any], identity: Identity) -> None:
        """Make the directory, or check that it holds the same run.

        Args:
            config: the run's settings.
            identity: returns the settings that two runs must share to be the same run.

        Raises:
            UserError: the directory holds something else, or the settings in it are damaged.
        """
        if self._has(CONFIG):
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
            path, folder = self.path / name, name in (PICTURES, TRANSFER, EXPLAIN)
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

    def beside(self) -> "RunDirectory":
        """Return the directory beside this one in which the run is computed again."""
        return RunDirectory(self.path.with_name(f".{self.path.name}.rerun"))

    def remove(self) -> None:
        """Delete the directory, if it is there."""
        shutil.rmtree(self.path, ignore_errors=True)

    def replace_by(self, fresh: "RunDirectory") -> None:
        """Replace this run by one computed again; files that aren't the run's stay.

        If the data have changed between them, this run is kept beside it under the next free version, NAME.v1.
        """
        for name in {path.name for path in self.path.iterdir()} - {*OWN, *(path.name for path in fresh.path.iterdir())}:
            (self.path / name).rename(fresh.path / name)
        shutil.rmtree(self._old, ignore_errors=True)
        self.path.rename(self._old)
        fresh.path.rename(self.path)
        flush_folder(self.path.parent)  # before the old one goes
        self._retire_old()

    def _retire_old(self) -> None:
        """Keep the run that was replaced as a version if it learned from other data; else remove it."""
        if self._learned_from(self._old) in (None, self._learned_from(self.path)):
            shutil.rmtree(self._old, ignore_errors=True)
            return
        free = next(path for path in map(self._version, count(1)) if not path.exists())
        self._old.rename(free)

    def _version(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.v{number}")

    @staticmethod
    def _learned_from(path: Path) -> str | None:
        """Return the fingerprint of the data of a finished run; None if there is none to be read."""
        with suppress(UserError):
            return str(RunReader(path).record()["fingerprint"])
        return None

    def restore(self) -> None:
        """Put back the directory that `replace_by` had moved away when it was killed, or finish what it had begun."""
        if not self._old.is_dir():
            return
        if self.path.exists():
            self._retire_old()
        else:
            self._old.rename(self.path)

    @property
    def _old(self) -> Path:
        return self.path.with_name(f".{self.path.name}.old")

    def remove_leftovers(self) -> None:
        """Remove the unfinished files that a killed run left, and the checkpoints beside a finished run.

        Only for the process that has opened the directory to write to it: another one's files may be on their way.
        """
        with suppress(OSError):  # somebody else's run is shown, too
            self.restore()
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
