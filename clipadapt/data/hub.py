"""Image-classification data sets of the Hugging Face hub, or of a local folder in one of its formats."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from clipadapt.data.folders import SPLIT_NAMES
from clipadapt.data.hub_rows import Columns, first_of_each, labels_of, pictures, without_decoding
from clipadapt.data.labels import check_other_number, check_shared, numbered, to_source, words
from clipadapt.data.network import offline, unreached
from clipadapt.data.tasks import UNLABELLED, Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import NameOrFolder

SAVED = ("dataset_dict.json", "state.json")
"""Files that tell a folder that `save_to_disk` wrote."""


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
    cache_dir: str | None = None,
) -> Source:
    """A data set of the Hugging Face hub, or a folder that `datasets` can read, by columns of images and labels.

    Columns are found by their types (Image, ClassLabel), splits by their names. A validation or test split whose labels
    are kept secret is left out; without a test split, what support and validation leave of the pool is the test set.

    Args:
        name: As on the hub, "organisation/name"; or a folder.
        subset: Which of the data set's subsets (also called configurations), where it has several.
        revision: Branch, tag or commit; None for the newest.
        image: The column of images.
        label: The column of labels.
        train: The split to learn from.
        validation: The split to validate on.
        test: The split to test on.
        streaming: How many images of each class to fetch of each split, the first ones, in place of the whole data
            set; what was fetched is kept.
        class_names: Names of the classes, in order; None for the data set's own.
        templates: Sentences with {} for the class name; None for "a photo of a {}."
        cache_dir: Where what is fetched is kept; None for where `datasets` keeps it.

    Raises:
        DataError: Without the `datasets` library; for a data set, split or column that isn't there or can't be loaded,
            a split that is taken twice, and labels that aren't single classes.
    """
    given = {"train": train, "val": validation, "test": test}
    with told(name):
        there, version = opened(name, subset, revision, cache_dir, streaming is not None)
    parts = chosen_splits(name, [*there], given)
    features = features_of(name, there[parts["train"]])
    columns = Columns(
        image=column(name, features, "image", "Image", image),
        label=column(name, features, "label", "ClassLabel", label),
    )
    names = known_names(name, features[columns.label], class_names)
    with told(name):
        rows = {part: without_decoding(there[split], columns) for part, split in parts.items()}
        if streaming is not None:
            rows = {
                part: first_of_each(name, rows[part], columns, names, streaming, f"{version} {split}", cache_dir)
                for part, split in parts.items()
            }
        labels = {part: labels_of(data, columns) for part, data in rows.items()}
    labels = without_secrets(name, labels, parts, given)
    if type(features[columns.label]).__name__ == "Value":
        names, labels = numbered(labels, names, name)
    assert names is not None, "they are the data set's, the user's or the labels themselves"
    splits = {part: Split(pictures(name, rows[part], columns.image), found) for part, found in labels.items()}
    return to_source(name.rstrip("/").rpartition("/")[2], names, templates, splits)


@contextmanager
def told(name: str) -> Iterator[None]:
    """Say what `datasets` raises of a data set in one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # its own, and those of the libraries that it fetches and reads with
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"the data set '{name}' can't be loaded: {reason}") from error


def opened(
    name: str, subset: str | None, revision: str | None, cache_dir: str | None, streaming: bool
) -> tuple[Mapping[str, Any], str]:
    """The data set's splits by name, streamed or fetched, and what tells its version from others."""
    try:
        import datasets
    except ImportError:
        raise DataError("data=huggingface needs the library datasets: pip install 'clipadapt[hub]'") from None
    folder = Path(name).expanduser()
    if any((folder / file).is_file() for file in SAVED):
        if streaming:
            raise DataError(f"'{name}' was saved on this disk, so there is nothing to stream: leave out data.streaming")
        saved = datasets.load_from_disk(str(folder))
        return (saved if isinstance(saved, dict) else {"train": saved}), ""
    place = str(folder) if folder.is_dir() else name
    reason = None if folder.is_dir() else unreached()
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
            f"'{name}' is no folder, isn't kept from an earlier use, and the hub can't be reached ({reason})"
        ) from error


def chosen_splits(name: str, there: list[str], given: Mapping[str, str | None]) -> dict[str, str]:
    """The data set's split for each of train, val and test, as given or else by the usual names.

    Raises:
        DataError: A split isn't there, is taken twice, or none is known to be for training.
    """
    for split in given.values():
        if split is not None and split not in there:
            raise DataError(f"'{name}' has no split '{split}': {nearest(split, there)}")
    check_shared({part: [split] for part, split in given.items() if split is not None}, "split", name)
    usual = {SPLIT_NAMES[split.lower()]: split for split in there if split.lower() in SPLIT_NAMES}
    if len(there) == 1:
        usual = {"train": there[0]}
    taken = [split for split in given.values() if split is not None]
    usual = {part: split for part, split in usual.items() if split not in taken}
    found = {part: given[part] or usual.get(part) for part in given}
    if found["train"] is None:
        raise DataError(f"'{name}' has no split called train: say which to learn from with data.train=… of {there}")
    return {part: split for part, split in found.items() if split is not None}


def features_of(name: str, data: Any) -> Mapping[str, Any]:
    """Types of the columns; raises DataError where they aren't known before the data set is fetched."""
    if data.features is None:
        raise DataError(f"the columns of '{name}' aren't known before it is fetched: leave out data.streaming")
    return dict(data.features)


def column(name: str, features: Mapping[str, Any], key: str, kind: str, given: str | None) -> str:
    """The column of images or labels: as given, the only one of its type, or the one called so.

    Raises:
        DataError: There is none, several, or one that isn't a single class.
    """
    if given is not None and given not in features:
        raise DataError(f"'{name}' has no column '{given}': {nearest(given, features)}")
    typed = [called for called, feature in features.items() if type(feature).__name__ == kind]
    found = given or (typed[0] if len(typed) == 1 else key)
    if found not in features:
        said = f"several columns of type {kind} ({', '.join(typed)})" if typed else f"no column of type {kind}"
        raise DataError(f"'{name}' has {said}: say which to take with data.{key}=…; {nearest(key, features)}")
    if key == "label" and type(features[found]).__name__ not in ("ClassLabel", "Value"):
        raise DataError(f"the column '{found}' of '{name}' has no single class for an image: {features[found]}")
    return found


def known_names(name: str, feature: Any, class_names: list[str] | None) -> list[str] | None:
    """Names of the classes, the user's or else the column's; None where its words are the names."""
    own = getattr(feature, "names", None)
    if own is None:
        return class_names
    check_other_number(name, class_names, len(own))
    return [words(called) for called in own] if class_names is None else class_names


def without_secrets(
    name: str, labels: Mapping[str, list[Any]], parts: Mapping[str, str], given: Mapping[str, str | None]
) -> dict[str, list[Any]]:
    """The splits whose labels are known; raises DataError where others are those to learn from, or were asked for."""
    secret = [part for part, found in labels.items() if UNLABELLED in found]
    for part in secret:
        if part == "train" or given[part] is not None:
            raise DataError(f"'{name}' has images without label in its split '{parts[part]}': take another one")
    return {part: found for part, found in labels.items() if part not in secret}
