"""Checkpoint files that open_clip doesn't read by itself: TorchScript archives, as OpenAI published CLIP's weights."""

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor

CONSTANTS = "constants.pkl"
"""A file that archives of TorchScript have, and checkpoints of torch.save don't."""

OF_OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives hold beside the weights."""


def read_archive(path: str) -> dict[str, Tensor] | None:
    """Return the tensors of a TorchScript archive in float32; None for any other file."""
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if any(Path(name).name == CONSTANTS for name in archive.namelist()):
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # that TorchScript is deprecated
                state: dict[str, Tensor] = torch.jit.load(path, map_location="cpu").state_dict()
            return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    return None


@contextmanager
def as_plain_checkpoint(path: str | None) -> Iterator[tuple[str | None, bool]]:
    """Yield a checkpoint that open_clip reads in place of a TorchScript archive, and whether that is one of OpenAI's.

    Other files, tags and None are yielded as they are. OpenAI's models have QuickGELU, whatever their names say.
    """
    state = None if path is None else read_archive(path)
    if state is None:
        yield path, False
        return
    weights = {name: value.contiguous() for name, value in state.items() if name not in OF_OPENAI}
    with TemporaryDirectory() as folder:
        plain = str(Path(folder) / "weights.safetensors")
        save_file(weights, plain)
        yield plain, len(weights) < len(state)
