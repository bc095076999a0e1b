"""torchvision's image-classification data sets, downloaded once if they are missing."""

import inspect
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from clipadapt.data import folders
from clipadapt.data.catalogue import CATALOGUE, CatalogueEntry
from clipadapt.data.images import LazyImages, pixel_bytes
from clipadapt.data.labels import check_class_count, to_source
from clipadapt.data.pixels import to_rgb
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.notices import announce
from clipadapt.paths import LocalPath

OWN = "torchvision-"
"""Prefix of the folders that data sets are downloaded to: torchvision uses folders named like the data sets."""

PARTS = ("train", "val", "test")

LABELS = ("targets", "_labels", "labels", "y")
"""Attributes of torchvision's classes that hold the labels, if they aren't paired with the files."""

PAIRS = ("_samples", "samples", "imgs")
FILES = ("_image_files", "_images")


def torchvision(
    name: str,
    download: bool = True,
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
    cache_dir: LocalPath = "~/.cache/clipadapt/datasets",
) -> Source:
    """Load one of torchvision's image-classification data sets, with its own splits.

    If there is no validation split, validation images are drawn from the pool; if there are no splits at all, the
    images outside the support and validation sets are the test set.

    Args:
        name: The name of torchvision's class, as "CIFAR10" (https://docs.pytorch.org/vision/stable/datasets.html).
        download: Whether to download it if it is missing, after a message; torchvision compares checksums.
        class_names: Names of the classes, in order; None for the data set's own.
        templates: Sentences with {} for the class name; None for the data set's.
        cache_dir: The folder that has it, as torchvision's `root`, or in a folder `torchvision-NAME`, to which it is
            downloaded.

    Raises:
        DataError: The data set is unknown, missing, damaged or can't be downloaded; class names are missing; or their
            number differs from the number of classes.
    """
    if name not in CATALOGUE:
        advice = nearest(name, CATALOGUE)
        raise DataError(f"there is no image-classification data set '{name}' of torchvision's: {advice}")
    entry = CATALOGUE[name]
    if class_names is None and entry.class_names is None:
        raise DataError(f"the classes of {name} have no names but codes: give them as data.class_names=[…], in order")
    parts = load_splits(name, entry, Path(cache_dir).expanduser(), download)
    splits = {part: to_split(dataset) for part, dataset in parts.items()}
    own = entry.class_names or [entry.to_name(called) for called in read_class_names(parts["train"])]
    count = len(own) or 1 + max(max(split.labels) for split in splits.values())
    check_class_count(name, class_names, count)
    return to_source(name, [*own] if class_names is None else class_names, templates, splits, entry.template)


def load_splits(name: str, entry: CatalogueEntry, cache: Path, download: bool) -> dict[str, Any]:
    """Return torchvision's data set object of each split, from a folder that has it or after a download.

    Raises:
        DataError: It is missing or damaged, and `download` is false or the download fails.
    """
    own = cache / f"{OWN}{name}"
    if os.path.isdir(own):
        return load_complete(name, entry, own)
    with suppress(Exception):  # missing or incomplete: each data set raises its own error
        return construct(name, entry, cache, download=False)
    if not download:
        raise DataError(f"{name} is neither in {own} nor in {cache}, or not whole: data.download=true fetches it")
    announce(f"fetching {name} to {own}, once")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{name}.lock"):
        if not os.path.isdir(own):
            fetch(name, entry, own)
    return load_complete(name, entry, own)


def load_complete(name: str, entry: CatalogueEntry, own: Path) -> dict[str, Any]:
    """Return the data set object of each split; raises DataError if the data set is damaged."""
    try:
        return construct(name, entry, own, download=False)
    except Exception as error:  # each data set raises its own errors
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} in {own} is damaged ({reason}): remove that folder, and it is fetched again"
        ) from error


def construct(name: str, entry: CatalogueEntry, root: Path, download: bool) -> dict[str, Any]:
    """Construct torchvision's data set object of each split that exists.

    Raises:
        RuntimeError: The data set isn't below the root, or is damaged.
        OSError: Files are missing.
    """
    from torchvision import datasets

    make = getattr(datasets, name)
    takes = inspect.signature(make).parameters
    choices: list[dict[str, Any] | None]
    if entry.splits:
        choices = [None if split is None else {"split": split} for split in entry.splits]
    else:
        choices = [{"train": True}, None, {"train": False}] if "train" in takes else [{}, None, None]
    return {
        part: make(str(root), **choice, **entry.options, download=download)
        for part, choice in zip(PARTS, choices, strict=True)
        if choice is not None
    }


def fetch(name: str, entry: CatalogueEntry, own: Path) -> None:
    """Download a data set to its own folder, which appears only when the download is complete.

    Raises:
        DataError: There is no network, a checksum differs, or the server no longer has it.
    """
    part = own.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        construct(name, entry, part, download=True)
        part.rename(own)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} could not be fetched ({reason}); a copy that you have can lie in {own}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def read_class_names(dataset: Any) -> Sequence[Any]:
    """Return the class names that torchvision has; an empty list if it has none."""
    return first_attribute(dataset, ("classes", "categories")) or ()


def to_split(dataset: Any) -> Split:
    """Return images and labels of torchvision's data set; files are sorted by path, and not opened."""
    pairs = first_attribute(dataset, PAIRS)
    if pairs is None and hasattr(dataset, "data"):
        return Split(LazyImages([*np.asarray(dataset.data)], from_array, content=array_bytes), read_labels(dataset))
    if pairs is None:
        files = first_attribute(dataset, FILES) or caltech_files(dataset)
        pairs = zip(files, read_labels(dataset), strict=True)
    pairs = sorted((Path(file), int(label)) for file, label in pairs)  # SUN397's order is the file system's
    return Split(folders.lazy_images([str(file) for file, _ in pairs]), [label for _, label in pairs])


def first_attribute(dataset: Any, attributes: Sequence[str]) -> Any:
    """Return the first of these attributes that a data set has; None if it has none."""
    return next((getattr(dataset, name) for name in attributes if hasattr(dataset, name)), None)


def read_labels(dataset: Any) -> list[int]:
    """Return the labels; if an image has several numbers, as in QMNIST, the first is the class."""
    labels = np.asarray(first_attribute(dataset, LABELS))
    return [int(label) for label in (labels if labels.ndim == 1 else labels[:, 0])]


def caltech_files(dataset: Any) -> list[Path]:
    """Return the files of Caltech101 or Caltech256, which are numbered in a folder per class."""
    (folder,) = Path(dataset.root).glob("*_ObjectCategories")
    names = "image_{1:04d}.jpg" if type(dataset).__name__ == "Caltech101" else "{0:03d}_{1:04d}.jpg"
    numbers = zip(dataset.y, dataset.index, strict=True)
    return [folder / dataset.categories[label] / names.format(label + 1, number) for label, number in numbers]


def from_array(pixels: np.ndarray) -> Image.Image:
    """Convert an array, grey or with channels first or last, to an RGB image."""
    channels_first = pixels.ndim == 3 and len(pixels) == 3
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0) if channels_first else pixels)))


def array_bytes(pixels: np.ndarray) -> bytes:
    """Return bytes that identify an array's image: its mode, size and pixels."""
    return pixel_bytes(from_array(pixels))
