"""Images in tar shards as WebDataset writes them: indexed once, then read by their place in the shard.

The entries of a sample share their name up to its first dot (https://github.com/webdataset/webdataset): dog/1.jpg is an
image, dog/1.cls the number of its class; or dog/1.json a table with its label, or dog/1.txt its class name.
"""

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.progress import Progress

from clipadapt.console import make_console
from clipadapt.data.folders import natural_order
from clipadapt.data.labels import check_shared, numbered, to_source
from clipadapt.data.shard_index import KINDS, Sample, indexed, pictures
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, listed
from clipadapt.files import FilePath

SHOWN_NAMES = 3
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def webdataset(
    root: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    field: str = "label",
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
    cache_dir: str = "~/.cache/clipadapt/shards",
) -> Source:
    """Images in uncompressed tar shards, each with a label beside it: x.cls (a number), x.json or x.txt (a word).

    Of several that all images have, the first of these is the label. Shards are named by a pattern, as
    'shards/train-{000..011}.tar' or 'shards/train-*.tar', or by their folder. Without validation shards that split is
    drawn from the pool; without test shards what support and validation leave is the test set.

    Args:
        root: The shards to learn from.
        validation: The shards of the validation split, if there are any.
        test: The shards of the test set, if there are any.
        field: Which value of a .json entry is the label.
        class_names: Names of the classes, in order; needed where labels are numbers.
        templates: Sentences with {} for the class name; None for "a photo of a {}."
        cache_dir: Where the shards' indices are kept; a shard that changed is indexed again.

    Raises:
        DataError: For shards that are missing, no tar files or of two splits, images without a label, and labels of no
            class.
    """
    kept = Path(cache_dir).expanduser()
    places = {"train": root, "val": validation, "test": test}
    shards = {split: shards_of(place) for split, place in places.items() if place is not None}
    check_shared({split: [str(shard.resolve()) for shard in found] for split, found in shards.items()}, "shard", root)
    with watched() as watch:
        samples = {
            split: [sample for shard in watch(found) for sample in indexed(shard, field, kept)]
            for split, found in shards.items()
        }
    kind = kind_of_labels([sample for found in samples.values() for sample in found], field)
    written = {split: [labels[kind] for _, labels in found] for split, found in samples.items()}
    names, numbers = numbered(written, class_names, root)
    splits = {split: Split(pictures([image for image, _ in found]), numbers[split]) for split, found in samples.items()}
    return to_source(Path(root).name, names, templates, splits)


@contextmanager
def watched() -> Iterator[Callable[[list[Path]], Iterable[Path]]]:
    """Show on a terminal how many shards have been indexed, as long as it lasts."""
    console = make_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield partial(progress.track, description="indexing shards")


def expanded(pattern: str) -> list[str]:
    """A pattern for each choice that its braces leave: {000..011} for numbers, {a,b} for words."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if ends is None:
        words = found[1].split(",")
    else:
        words = [f"{number:0{len(ends[1])}d}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [whole for word in words for whole in expanded(f"{before}{word}{after}")]


def shards_of(place: str) -> list[Path]:
    """The shards that a folder or a pattern stands for, in natural order.

    Raises:
        DataError: There are none, or one that the pattern says is missing.
    """
    folder = Path(place).expanduser()
    patterns = [str(folder / "*.tar")] if folder.is_dir() else expanded(str(folder))
    shards = [Path(path) for pattern in patterns for path in (glob.glob(pattern) or [pattern])]
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing:
        packed = [path.name for path in folder.glob("*") if path.name.endswith(COMPRESSED)] if folder.is_dir() else []
        advice = f": compressed ones aren't read, as {listed(sorted(packed), SHOWN_NAMES)}" if packed else ""
        raise DataError(
            f"there is no shard {' and no '.join(missing[:SHOWN_NAMES])}, which '{place}' stands for{advice}"
        )
    return sorted(shards, key=lambda shard: natural_order(str(shard)))


def kind_of_labels(samples: Sequence[Sample], field: str) -> str:
    """The extension of the entries that are the labels of all samples.

    Raises:
        DataError: Some samples have none, or others than the rest.
    """
    for kind in KINDS:
        if all(kind in labels for _, labels in samples):
            return kind
    there = [kind for kind in KINDS if any(kind in labels for _, labels in samples)]
    if not there:
        raise DataError(
            f"the images of '{samples[0][0].shard}' have no labels beside them: a sample {samples[0][0].name} needs an "
            f'entry .cls (a number), .json (with "{field}"; data.field=… names another one) or .txt (a word)'
        )
    bare = [str(image) for image, labels in samples if there[0] not in labels]
    raise DataError(f"some images have a label .{there[0]}, and these have none: {listed(bare, SHOWN_NAMES)}")
