"""Checkpoints of an unfinished run: the last two, so that there is another if one is damaged."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipadapt.checksums import DAMAGE, dump_checked_tensors, read_checked_tensors, reason
from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError
from clipadapt.files import write_atomically
from clipadapt.runs.state_tree import decode, encode

KEPT, FORMAT = 2, "1"


class Checkpoints:
    """The checkpoints in a run's directory, each a safetensors file named after its epoch, with a checksum.

    Args:
        folder: the run's directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, epoch: int) -> Path:
        """Return the file of the checkpoint after a number of epochs."""
        return self.folder / f"checkpoint-{epoch}.safetensors"

    def epochs(self) -> list[int]:
        """Return the epochs of the checkpoints, the latest first."""
        found = (path.name.removeprefix("checkpoint-") for path in self.folder.glob("checkpoint-*.safetensors"))
        numbers = (name.removesuffix(".safetensors") for name in found)
        return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)

    def save(self, progress: TrainState) -> None:
        """Save a fit's state; of the others, the one before it stays.

        Raises:
            UserError: an optimiser or a schedule whose state can't be saved.
        """
        path, tensors = self.path(progress.epoch), dict[str, Tensor]()
        texts = {"format": FORMAT, "state": json.dumps(encode(vars(progress), tensors))}
        if path.is_dir():  # in the place of a damaged one
            shutil.rmtree(path)
        write_atomically(path, dump_checked_tensors(tensors, texts))
        earlier = [epoch for epoch in self.epochs() if epoch < progress.epoch]
        for epoch in {*self.epochs()} - {progress.epoch, *earlier[: KEPT - 1]}:
            self._remove(epoch)

    def load(self, device: torch.device) -> TrainState | None:
        """Load the last state that is whole, and warn about those after it; None if there is no checkpoint.

        Raises:
            UserError: none is whole.
        """
        damaged = []
        for epoch in self.epochs():
            try:
                tensors, state = self._read(epoch)
            except (OSError, *DAMAGE) as error:
                damaged.append(f"{self.path(epoch)}: {reason(error)}")
                continue
            if damaged:
                warnings.warn(
                    f"a checkpoint is damaged ({'; '.join(damaged)}): the run goes on from the one before it",
                    stacklevel=3,
                )
            return TrainState(**decode(state, {name: value.to(device) for name, value in tensors.items()}))
        if damaged:
            raise UserError(f"no checkpoint of this run is whole ({'; '.join(damaged)}): rerun=true begins again")
        return None

    def _read(self, epoch: int) -> tuple[dict[str, Tensor], Any]:
        """Return the tensors and the rest of a checkpoint; raises OSError, or one of DAMAGE."""
        tensors, texts = read_checked_tensors(self.path(epoch))
        if texts["format"] != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}, which this clipadapt reads")
        return tensors, json.loads(texts["state"])

    def remove(self) -> None:
        """Remove all checkpoints."""
        for epoch in self.epochs():
            self._remove(epoch)

    def _remove(self, epoch: int) -> None:
        path = self.path(epoch)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
