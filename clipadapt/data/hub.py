"""Image-classification data sets of the Hugging Face hub, or of a local folder in one of its formats."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from clipadapt.data.hub_rows import Columns, first_images_per_class, lazy_images, read_labels, select_undecoded
from clipadapt.data.labels import check_class_count, check_disjoint, encode_labels, to_source, to_words
from clipadapt.data.network import CACHE_ONLY, find_connection_error, offline
from clipadapt.data.splits import group_by_split
from clipadapt.data.tasks import UNLABELLED, Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import NameOrFolder
from clipadapt.paths import LocalPath

SAVED = ("dataset_dict.json", "state.json")
"""Files in folders written by `save_to_disk`."""


def huggingface(
    name: NameOrFolder,
    subset: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    label: str | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    streaming: Annotated[int, Ge(1)] | None = None,
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
    cache_dir: LocalPath | None = None,
) -> Source:
    """Load a data set of the Hugging Face hub, or a folder that `datasets` can read, by columns of images and labels.

    Columns are found by their types (Image, ClassLabel), splits by their names. A validation or test split without
    labels is left out. If there is no test split, the pool's images outside the support and validation sets are the
    test set.

    Args:
        name: The name on the hub, "organisation/name", or a folder.
        subset: The subset (also called configuration) of a data set that has several.
        revision: Branch, tag or commit; None for the newest.
        image: The column of images.
        label: The column of labels.
        train: The split to learn from.
        validation: The split to validate on.
        test: The split to test on.
        streaming: How many images of each class to download of each split, the first ones, instead of the whole data
            set; they are cached.
        class_names: Names of the classes, in order; None for the data set's own.
        templates: Sentences with {} for the class name; None for "a photo of a {}."
        cache_dir: The folder for downloads; None for the one of `datasets`.

    Raises:
        DataError: The library `datasets` is not installed; a data set, split or column doesn't exist or can't be
            loaded; a split is used twice; or the labels aren't single classes.
    """
    given = {"train": train, "val": validation, "test": test}
    with as_user_error(name):
        there, version = open_data_set(name, subset, revision, cache_dir, streaming is not None)
    parts = choose_splits(name, [*there], given)
    features = column_types(name, there[parts["train"]])
    columns = Columns(
        image=choose_column(name, features, "image", "Image", image),
        label=choose_column(name, features, "label", "ClassLabel", label),
    )
    names = choose_class_names(name, features[columns.label], class_names)
    with as_user_error(name):
        rows = {part: select_undecoded(there[split], columns) for part, split in parts.items()}
        if streaming is not None:
            rows = {
                part: first_images_per_class(
                    name, rows[part], columns, names, streaming, f"{version} {split}", cache_dir
                )
                for part, split in parts.items()
            }
        labels = {part: read_labels(data, columns) for part, data in rows.items()}
    labels = drop_unlabelled_splits(name, labels, parts, given)
    if type(features[columns.label]).__name__ == "Value":
        names, labels = encode_labels(labels, names, name)
    assert names is not None, "they are the data set's, the user's or the labels themselves"
    splits = {part: Split(lazy_images(name, rows[part], columns.image), found) for part, found in labels.items()}
    return to_source(name.rstrip("/").rpartition("/")[2], names, templates, splits)


@contextmanager
def as_user_error(name: str) -> Iterator[None]:
    """Raise a DataError in place of whatever `datasets` raises for a data set."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # its own, and those of the libraries that it fetches and reads with
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"the data set '{name}' can't be loaded: {reason}") from error


def open_data_set(
    name: str, subset: str | None, revision: str | None, cache_dir: str | None, streaming: bool
) -> tuple[Mapping[str, Any], str]:
    """Return a data set's splits by name, streamed or downloaded, and a string that identifies its version."""
    try:
        import datasets
    except ImportError:
        raise DataError("data=huggingface needs the library datasets: pip install 'clipadapt[hub]'") from None
    folder = Path(name).expanduser()
    if any(os.path.isfile(folder / file) for file in SAVED):
        if streaming:
            raise DataError(f"'{name}' was saved on this disk, so there is nothing to stream: leave out data.streaming")
        saved = datasets.load_from_disk(str(folder))
        return (saved if isinstance(saved, dict) else {"train": saved}), ""
    place = str(folder) if os.path.isdir(folder) else name
    reason = find_connection_error() if CACHE_ONLY.get() or not os.path.isdir(folder) else None
    try:
        with offline() if reason else nullcontext():
            builder = datasets.load_dataset_builder(place, subset, revision=revision, cache_dir=cache_dir)
            if streaming:
                return builder.as_streaming_dataset(), builder.cache_dir
            builder.download_and_prepare()
            return builder.as_dataset(), builder.cache_dir
    except Exception as error:
        if reason is None:
            raise
        raise DataError(
            f"'{name}' is neither a folder nor in the cache, and the hub can't be reached ({reason})"
        ) from error


def choose_splits(name: str, there: list[str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the name of the train, val and test split: as given, or else by the usual names.

    Raises:
        DataError: A split doesn't exist or is used twice, or no split is known to be the training split.
    """
    for split in given.values():
        if split is not None and split not in there:
            raise DataError(f"'{name}' has no split '{split}': {nearest(split, there)}")
    check_disjoint({part: [split] for part, split in given.items() if split is not None}, "split", name)
    usual = {part: names[-1] for part, names in group_by_split(there).items()}
    if len(there) == 1:
        usual = {"train": there[0]}
    taken = [split for split in given.values() if split is not None]
    usual = {part: split for part, split in usual.items() if split not in taken}
    found = {part: given[part] or usual.get(part) for part in given}
    if found["train"] is None:
        raise DataError(f"'{name}' has no split called train: say which to learn from with data.train=… of {there}")
    return {part: split for part, split in found.items() if split is not None}


def column_types(name: str, data: Any) -> Mapping[str, Any]:
    """Return the types of the columns; raises DataError if they aren't known before the data set is downloaded."""
    if data.features is None:
        raise DataError(f"the columns of '{name}' aren't known before it is fetched: leave out data.streaming")
    return dict(data.features)


def choose_column(name: str, features: Mapping[str, Any], key: str, kind: str, given: str | None) -> str:
    """Return the column of images or labels: as given, or the only one of its type, or the one named `key`.

    Raises:
        DataError: There is no such column, there are several, or its labels aren't single classes.
    """
    if given is not None and given not in features:
        raise DataError(f"'{name}' has no column '{given}': {nearest(given, features)}")
    typed = [called for called, feature in features.items() if type(feature).__name__ == kind]
    found = given or (typed[0] if len(typed) == 1 else key)
    if found not in features:
        columns = f"several columns of type {kind} ({', '.join(typed)})" if typed else f"no column of type {kind}"
        raise DataError(f"'{name}' has {columns}: say which to take with data.{key}=…; {nearest(key, features)}")
    if key == "label" and type(features[found]).__name__ not in ("ClassLabel", "Value"):
        raise DataError(f"the column '{found}' of '{name}' has no single class for an image: {features[found]}")
    return found


def choose_class_names(name: str, feature: Any, class_names: list[str] | None) -> list[str] | None:
    """Return the class names: the user's, or else the column's; None if the labels themselves are the names."""
    own = getattr(feature, "names", None)
    if own is None:
        return class_names
    check_class_count(name, class_names, len(own))
    return [to_words(called) for called in own] if class_names is None else class_names


def drop_unlabelled_splits(
    name: str, labels: Mapping[str, list[Any]], parts: Mapping[str, str], given: Mapping[str, str | None]
) -> dict[str, list[Any]]:
    """Drop the splits without labels; raises DataError if the user named one of them, or it is the training split."""
    secret = [part for part, found in labels.items() if UNLABELLED in found]
    for part in secret:
        if part == "train" or given[part] is not None:
            raise DataError(f"'{name}' has images without label in its split '{parts[part]}': take another one")
    return {part: found for part, found in labels.items() if part not in secret}
