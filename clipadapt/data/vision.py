"""The image-classification data sets that torchvision knows, fetched once if they aren't there."""

import inspect
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from clipadapt.console import print_error
from clipadapt.data import folders
from clipadapt.data.catalogue import CATALOGUE, Known
from clipadapt.data.images import LazyImages, pixel_bytes, to_rgb
from clipadapt.data.labels import check_other_number, to_source
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, nearest

OWN = "torchvision-"
"""How the names of the folders begin that data sets are fetched to: torchvision itself has folders of their names."""

PARTS = ("train", "val", "test")

LABELS = ("targets", "_labels", "labels", "y")
"""Where torchvision's classes keep the labels, when not in pairs with the files."""

PAIRS = ("_samples", "samples", "imgs")
FILES = ("_image_files", "_images")


def torchvision(
    name: str,
    download: bool = True,
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
    cache_dir: str = "~/.cache/clipadapt/datasets",
) -> Source:
    """One of torchvision's image-classification data sets, with its own splits.

    A data set without a validation split has it drawn from the pool; one without any splits is tested on what support
    and validation leave.

    Args:
        name: Of torchvision's class, as "CIFAR10" (https://docs.pytorch.org/vision/stable/datasets.html).
        download: Whether to fetch it where it isn't there, which is said; torchvision compares checksums.
        class_names: Names of the classes, in order; None for the data set's own, in words.
        templates: Sentences with {} for the class name; None for the data set's.
        cache_dir: Where it is, as torchvision's `root`, or in a folder `torchvision-NAME`, to which it is fetched.

    Raises:
        DataError: For a data set that isn't known, isn't there, can't be fetched or is damaged, and for class names of
            another number than there are classes, or that are needed.
    """
    if name not in CATALOGUE:
        advice = nearest(name, CATALOGUE)
        raise DataError(f"there is no image-classification data set '{name}' of torchvision's: {advice}")
    known = CATALOGUE[name]
    if class_names is None and known.class_names is None:
        raise DataError(f"the classes of {name} have no names but codes: give them as data.class_names=[…], in order")
    parts = made(name, known, Path(cache_dir).expanduser(), download)
    splits = {part: split_of(dataset) for part, dataset in parts.items()}
    own = known.class_names or [known.say(called) for called in classes_of(parts["train"])]
    count = len(own) or 1 + max(max(split.labels) for split in splits.values())
    check_other_number(name, class_names, count)
    return to_source(name, [*own] if class_names is None else class_names, templates, splits, known.template)


def made(name: str, known: Known, cache: Path, download: bool) -> dict[str, Any]:
    """The data set of each split, from where it is in a folder, or fetched to it.

    Raises:
        DataError: It isn't there or is damaged, and isn't to be fetched or can't be.
    """
    own = cache / f"{OWN}{name}"
    if own.is_dir():
        return whole(name, known, own)
    with suppress(Exception):  # it isn't there, or not whole, of which each data set has its own way of telling
        return construct(name, known, cache, download=False)
    if not download:
        raise DataError(f"{name} is neither in {own} nor in {cache}, or not whole: data.download=true fetches it")
    print_error(f"fetching {name} to {own}, once")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{name}.lock"):
        if not own.is_dir():
            fetch(name, known, own)
    return whole(name, known, own)


def whole(name: str, known: Known, own: Path) -> dict[str, Any]:
    """The data set of each split; raises DataError where it is damaged."""
    try:
        return construct(name, known, own, download=False)
    except Exception as error:  # each data set has its own ways of failing
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} in {own} is damaged ({reason}): remove that folder, and it is fetched again"
        ) from error


def construct(name: str, known: Known, root: Path, download: bool) -> dict[str, Any]:
    """The data set of each split that there is, as torchvision has it.

    Raises:
        RuntimeError: It isn't below the root, or damaged; so do files that are missing, as OSError.
    """
    from torchvision import datasets

    make = getattr(datasets, name)
    takes = inspect.signature(make).parameters
    choices: list[dict[str, Any] | None]
    if known.splits:
        choices = [None if split is None else {"split": split} for split in known.splits]
    else:
        choices = [{"train": True}, None, {"train": False}] if "train" in takes else [{}, None, None]
    return {
        part: make(str(root), **choice, **known.options, download=download)
        for part, choice in zip(PARTS, choices, strict=True)
        if choice is not None
    }


def fetch(name: str, known: Known, own: Path) -> None:
    """Fetch a data set to a folder of its own, which is there once it is whole.

    Raises:
        DataError: There is no network, a checksum differs, or it is not to be had any more.
    """
    part = own.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        construct(name, known, part, download=True)
        part.rename(own)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name} could not be fetched ({reason}); a copy that you have can lie in {own}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def classes_of(dataset: Any) -> Sequence[Any]:
    """Names of the classes as torchvision has them; none where it has none."""
    return first_of(dataset, ("classes", "categories")) or ()


def split_of(dataset: Any) -> Split:
    """Images and labels of torchvision's data set; files in the order of their paths, and not opened."""
    pairs = first_of(dataset, PAIRS)
    if pairs is None and hasattr(dataset, "data"):
        return Split(LazyImages([*np.asarray(dataset.data)], from_array, content=array_bytes), labels_of(dataset))
    if pairs is None:
        files = first_of(dataset, FILES) or caltech_files(dataset)
        pairs = zip(files, labels_of(dataset), strict=True)
    listed = sorted((Path(file), int(label)) for file, label in pairs)  # SUN397 has them as the file system gives them
    return Split(folders.pictures([str(file) for file, _ in listed]), [label for _, label in listed])


def first_of(dataset: Any, attributes: Sequence[str]) -> Any:
    """The first attribute that a data set has, None if none."""
    return next((getattr(dataset, name) for name in attributes if hasattr(dataset, name)), None)


def labels_of(dataset: Any) -> list[int]:
    """The labels; where there is more than one number for an image, as in QMNIST, the first is the class."""
    labels = np.asarray(first_of(dataset, LABELS))
    return [int(label) for label in (labels if labels.ndim == 1 else labels[:, 0])]


def caltech_files(dataset: Any) -> list[Path]:
    """The files of Caltech101 and Caltech256, which are numbered in a folder for each class."""
    (folder,) = Path(dataset.root).glob("*_ObjectCategories")
    names = "image_{1:04d}.jpg" if type(dataset).__name__ == "Caltech101" else "{0:03d}_{1:04d}.jpg"
    numbers = zip(dataset.y, dataset.index, strict=True)
    return [folder / dataset.categories[label] / names.format(label + 1, number) for label, number in numbers]


def from_array(pixels: np.ndarray) -> Image.Image:
    """The image of an array, grey or with channels first or last, as RGB."""
    channels_first = pixels.ndim == 3 and len(pixels) == 3
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0) if channels_first else pixels)))


def array_bytes(pixels: np.ndarray) -> bytes:
    """What stands for an array's image: its size and pixels."""
    return pixel_bytes(from_array(pixels))
