"""Export of a predictor: checks first, then one format writes into a folder, which is compared with the predictor."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipadapt.errors import UserError
from clipadapt.exports.examples import Examples
from clipadapt.exports.formats import FORMATS, check_packages
from clipadapt.exports.request import Comparison, Request, Written, folder_size
from clipadapt.files import whole_folder
from clipadapt.runs.predictor import Predictor
from clipadapt.runs.reading import check_new_folder
from clipadapt.threads import limited_threads


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        folder: the folder.
        files: paths of its files, relative to it.
        bytes: of all files.
        compared: the comparison with the predictor.
        notes: sentences for the user.
        figures: further figures, by name.
    """

    folder: Path
    files: tuple[str, ...]
    bytes: int
    compared: Comparison
    notes: tuple[str, ...]
    figures: dict[str, Any]

    @property
    def difference(self) -> float:
        """Return the largest difference of probabilities between the predictor and the file."""
        return self.compared.difference

    def __str__(self) -> str:
        """Return what was written and how it compares, in lines."""
        listed = f"{self.folder}: {', '.join(self.files)} ({self.bytes / 1e6:,.1f} MB)"
        return "\n".join([listed, f"checked: {self.compared}", *self.notes])


def check_place(name: str, out: Path) -> None:
    """Check what can be checked before anything is loaded: the packages of a format, and the place of its folder.

    Raises:
        UserError: a package isn't installed, or something is at that place.
    """
    check_packages(name)
    check_new_folder(out)


def export_predictor(
    predictor: Predictor, name: str, out: Path, examples: Examples, options: Mapping[str, Any]
) -> Exported:
    """Write a predictor in a format, and check it against the predictor.

    Args:
        predictor: on the CPU, in float32.
        name: of the format.
        out: the folder to write.
        examples: the images to check it on.
        options: of the format, by key.

    Raises:
        UserError: the method can't be exported so, a package isn't installed, or something is at that place.
    """
    check_place(name, out)
    form, clip = FORMATS[name], predictor.model.clip
    if predictor.test_time is not None and not form.at_test_time:
        raise UserError(
            f"format={name} can't hold {type(predictor.test_time).__name__}, which adapts to each test image"
        )
    if clip.device.type != "cpu" or clip.dtype != torch.float32:
        raise UserError(f"the predictor is on {clip.device} in {clip.dtype}: load it with device='cpu' to export it")
    writer = importlib.import_module(f"clipadapt.exports.{form.module}")
    with torch.no_grad(), limited_threads(clip.parameters), whole_folder(out) as folder:
        written: Written = writer.write(Request(predictor, examples, options), folder)
        files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
        size = folder_size(folder)
    return Exported(out, files, size, written.compared, written.notes, written.figures)
