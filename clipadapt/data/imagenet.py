"""ImageNet and the data sets that test for shifts of it, in CoOp's layout (see clipadapt.data.prepared).

Class folders are called by their WordNet ids. A file classnames.txt beside the image folder says what people call them
("n01440764 tench"); where there is none, the names are CLIP's, which ship with the package.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from clipadapt.data.folders import pictures
from clipadapt.data.imagenet_classes import Classes
from clipadapt.data.prepared import INSTRUCTIONS, existing, named
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, listed
from clipadapt.files import IMAGE_SUFFIXES, FilePath

SHOWN_FOLDERS = 5


def imagenet(name: str, home: FilePath, images: str, class_names: list[str] | None, templates: list[str]) -> Source:
    """ImageNet (Deng et al., CVPR 2009; ILSVRC 2012): folders by WordNet id below train/ and val/.

    The val folder is the test set, as in CoOp, which also validates on it; here validation images are drawn from the
    training images. Files go by name: CoOp takes them as the file system lists them, so that its few shots differ from
    one machine to the next, and from these.

    Args:
        name: What it is called.
        home: The folder that holds all data sets.
        images: The folder of the folders train and val, from there.
        class_names: In the order of the WordNet ids; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: For a folder that is missing or has no images, folders that are no classes of ImageNet, or class
            names of another number.
    """
    train, val = (existing(home, f"{images}/{part}", Path.is_dir) for part in ("train", "val"))
    ids = folder_names(train)
    classes = Classes.of(train.parent.parent)
    own = classes.names_of(ids, train)
    labels = {folder: label for label, folder in enumerate(ids)}
    tested = folder_names(val)
    if strangers := [folder for folder in tested if folder not in labels]:
        raise DataError(f"'{val}' has class folders that train lacks: {listed(strangers, SHOWN_FOLDERS)}")
    source = Source(
        name=name,
        class_names=named(name, own, class_names),
        templates=templates,
        train=of_folders(train, labels),
        validation=None,
        tests={"test": of_folders(val, {folder: labels[folder] for folder in tested})},
        namesakes=class_names is None,
    )
    return classes.compared(source, ids, {"train": source.train, **source.tests})


def imagenet_variant(
    name: str, home: FilePath, images: str, class_names: list[str] | None, templates: list[str]
) -> Source:
    """A test set of all of ImageNet's classes, for models of it; there is nothing to learn from.

    ImageNet-V2 (Recht et al., ICML 2019, arXiv:1902.10811) has folders by label, -Sketch (Wang et al., NeurIPS 2019,
    arXiv:1905.13549) by WordNet id.

    Args:
        name: What it is called.
        home: The folder that holds all data sets.
        images: The folder of the class folders, from there.
        class_names: In the order of the folders; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: For a folder that is missing or has no images, folders that are no classes of ImageNet, or class
            names of another number.
    """
    place = existing(home, images, Path.is_dir)
    return to_test_on(name, place, Classes.of(place.parent), class_names, templates)


def imagenet_subset(
    name: str, home: FilePath, images: str, class_names: list[str] | None, templates: list[str]
) -> Source:
    """A test set of some of ImageNet's classes, those that it has a folder of; there is nothing to learn from.

    ImageNet-A (Hendrycks et al., CVPR 2021, arXiv:1907.07174) and -R (Hendrycks et al., ICCV 2021, arXiv:2006.16241)
    have 200 each, by WordNet id. Arguments and errors are those of `imagenet_variant`.
    """
    place = existing(home, images, Path.is_dir)
    return to_test_on(name, place, Classes.of(place.parent), class_names, templates, whole=False)


def to_test_on(
    name: str,
    place: Path,
    classes: Classes,
    class_names: list[str] | None,
    templates: list[str],
    whole: bool = True,
) -> Source:
    """A test set of class folders, with nothing to learn from.

    Args:
        name: What it is called.
        place: Where the folders are.
        classes: What they may be.
        class_names: In the order of the folders; None for those that the classes are known by.
        templates: Sentences with {} for the class name.
        whole: Whether all of the classes should be there.

    Raises:
        DataError: As of `imagenet_variant`.
    """
    folders = folder_names(place)
    own = classes.names_of(folders, place)
    source = Source(
        name=name,
        class_names=named(name, own, class_names),
        templates=templates,
        train=Split([], []),
        validation=None,
        tests={"test": of_folders(place, {folder: label for label, folder in enumerate(folders)})},
        namesakes=class_names is None,
    )
    return classes.compared(source, folders, source.tests) if whole else source


def folder_names(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted, those that are numbers as numbers; files are left out.

    Raises:
        DataError: Where there are none, or it may not be read.
    """
    try:
        with os.scandir(place) as entries:
            found = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        raise DataError(f"'{place}' can't be read: {error}") from error
    if not found:
        raise DataError(f"'{place}' has no class folders: {INSTRUCTIONS} says how it is prepared")
    return sorted(found, key=lambda name: (int(name) if name.isdecimal() else 0, name))


def of_folders(place: Path, labels: Mapping[str, int]) -> Split:
    """The images of class folders as a split, by file name in each; 1.3 million are listed in a few seconds.

    Raises:
        DataError: Where there are none, or a folder may not be read.
    """
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(images_of, [f"{place}/{folder}" for folder in labels]))
    if not any(found):
        raise DataError(f"the class folders of '{place}' have no images")
    counted = zip(labels.values(), found, strict=True)
    return Split(pictures([*chain.from_iterable(found)]), [label for label, files in counted for _ in files])


def images_of(folder: str) -> list[str]:
    """The image files in a folder, by name; hidden and other files are left out."""
    endings = tuple(IMAGE_SUFFIXES)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"'{folder}' can't be read: {error}") from error
    return [f"{folder}/{name}" for name in names if name.lower().endswith(endings) and not name.startswith(".")]
