"""ImageNet and its distribution-shift test sets, in CoOp's layout (see clipadapt.data.prepared).

Class folders are named by WordNet id. A file classnames.txt beside the image folder maps ids to class names ("n01440764
tench"); without it, the names are CLIP's, which ship with the package.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from clipadapt.data.folders import lazy_images
from clipadapt.data.formats import image_suffixes
from clipadapt.data.imagenet_classes import ImageNetClasses
from clipadapt.data.prepared import INSTRUCTIONS, choose_class_names, find_path
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, join_names
from clipadapt.files import FilePath
from clipadapt.paths import LocalPath

SHOWN_FOLDERS = 5


def imagenet(
    name: str, home: FilePath, images: LocalPath, class_names: list[str] | None, templates: list[str]
) -> Source:
    """Read ImageNet (Deng et al., CVPR 2009; ILSVRC 2012): folders by WordNet id below train/ and val/.

    The val folder is the test set, as in CoOp, which also validates on it; here validation images are drawn from the
    training images. Files are sorted by name: CoOp takes them in the file system's order, so its few shots differ from
    one machine to the next, and from these.

    Args:
        name: The data set's name.
        home: The folder that holds all data sets.
        images: The folder that holds train and val, relative to `home`.
        class_names: Class names in the order of the WordNet ids; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: A folder is missing or has no images, some folders are not classes of ImageNet, or the number of
            class names differs from the number of classes.
    """
    train, val = (find_path(home, f"{images}/{part}", os.path.isdir) for part in ("train", "val"))
    ids = folder_names(train)
    classes = ImageNetClasses.read(train.parent.parent)
    own = classes.find_class_names(ids, train)
    labels = {folder: label for label, folder in enumerate(ids)}
    test_folders = folder_names(val)
    if strangers := [folder for folder in test_folders if folder not in labels]:
        raise DataError(f"'{val}' has class folders that train lacks: {join_names(strangers, SHOWN_FOLDERS)}")
    source = Source(
        name=name,
        class_names=choose_class_names(name, own, class_names),
        templates=templates,
        train=read_class_folders(train, labels),
        validation=None,
        tests={"test": read_class_folders(val, {folder: labels[folder] for folder in test_folders})},
        allow_duplicate_names=class_names is None,
    )
    return classes.mark_missing_classes(source, ids, {"train": source.train, **source.tests})


def imagenet_variant(
    name: str, home: FilePath, images: LocalPath, class_names: list[str] | None, templates: list[str]
) -> Source:
    """Read a test set of all of ImageNet's classes, for models trained on it; it has no training images.

    ImageNet-V2 (Recht et al., ICML 2019, arXiv:1902.10811) has folders by label, -Sketch (Wang et al., NeurIPS 2019,
    arXiv:1905.13549) by WordNet id.

    Args:
        name: The data set's name.
        home: The folder that holds all data sets.
        images: The folder of the class folders, relative to `home`.
        class_names: Class names in the order of the folders; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: A folder is missing or has no images, some folders are not classes of ImageNet, or the number of
            class names differs from the number of classes.
    """
    place = find_path(home, images, os.path.isdir)
    return evaluation_only_source(name, place, ImageNetClasses.read(place.parent), class_names, templates)


def imagenet_subset(
    name: str, home: FilePath, images: LocalPath, class_names: list[str] | None, templates: list[str]
) -> Source:
    """Read a test set of the ImageNet classes that it has a folder for; it has no training images.

    ImageNet-A (Hendrycks et al., CVPR 2021, arXiv:1907.07174) and -R (Hendrycks et al., ICCV 2021, arXiv:2006.16241)
    have 200 each, by WordNet id. Arguments and errors are those of `imagenet_variant`.
    """
    place = find_path(home, images, os.path.isdir)
    return evaluation_only_source(name, place, ImageNetClasses.read(place.parent), class_names, templates, whole=False)


def evaluation_only_source(
    name: str,
    place: Path,
    classes: ImageNetClasses,
    class_names: list[str] | None,
    templates: list[str],
    whole: bool = True,
) -> Source:
    """Return a source with one test set, read from class folders, and no training images.

    Args:
        name: The data set's name.
        place: The folder of the class folders.
        classes: The classes that the folders may be.
        class_names: Class names in the order of the folders; None for those of `classes`.
        templates: Sentences with {} for the class name.
        whole: Whether the test set should have all of the classes.

    Raises:
        DataError: As in `imagenet_variant`.
    """
    folders = folder_names(place)
    own = classes.find_class_names(folders, place)
    source = Source(
        name=name,
        class_names=choose_class_names(name, own, class_names),
        templates=templates,
        train=Split([], []),
        validation=None,
        tests={"test": read_class_folders(place, {folder: label for label, folder in enumerate(folders)})},
        allow_duplicate_names=class_names is None,
    )
    return classes.mark_missing_classes(source, folders, source.tests) if whole else source


def folder_names(place: Path) -> list[str]:
    """Return the names of the folders in a folder, numeric names by value, then the others by name.

    Raises:
        DataError: There are none, or the folder can't be read.
    """
    try:
        with os.scandir(place) as entries:
            found = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        raise DataError(f"'{place}' can't be read: {error}") from error
    if not found:
        raise DataError(f"'{place}' has no class folders: {INSTRUCTIONS} says how it is prepared")
    return sorted(found, key=lambda name: (int(name) if name.isdecimal() else 0, name))


def read_class_folders(place: Path, labels: Mapping[str, int]) -> Split:
    """Return the images of class folders as a split, sorted by name in each; lists 1.3 million in a few seconds.

    Raises:
        DataError: There are no images, or a folder can't be read.
    """
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(list_images, [f"{place}/{folder}" for folder in labels]))
    if not any(found):
        raise DataError(f"the class folders of '{place}' have no images")
    counted = zip(labels.values(), found, strict=True)
    return Split(lazy_images([*chain.from_iterable(found)]), [label for label, files in counted for _ in files])


def list_images(folder: str) -> list[str]:
    """Return the image files in a folder, sorted by name, without hidden and other files."""
    endings = tuple(image_suffixes())
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"'{folder}' can't be read: {error}") from error
    return [f"{folder}/{name}" for name in names if name.lower().endswith(endings) and not name.startswith(".")]
