"""Images in WebDataset's tar shards, which are indexed once and then read by offset.

The entries of a sample share their name up to its first dot (https://github.com/webdataset/webdataset): dog/1.jpg is an
image, dog/1.cls the number of its class; or dog/1.json a table with its label, or dog/1.txt its class name. Names with
more dots, such as dog/1.v2.jpg, are shared up to the last dot if there are such labels.
"""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from clipadapt.data.labels import check_disjoint, encode_labels, to_source
from clipadapt.data.listing import LeftOut, natural_order, say_left_out
from clipadapt.data.shard_index import LABEL_EXTENSIONS, Sample, lazy_images, load_index
from clipadapt.data.splits import group_by_split
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, join_names
from clipadapt.files import FilePath
from clipadapt.notices import notice, show_progress
from clipadapt.paths import LocalPath, shorten

SHOWN_NAMES = 3
MAX_SHARDS, MAX_BRACES = 100_000, 100
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def webdataset(
    root: FilePath,
    validation: FilePath | None = None,
    test: FilePath | None = None,
    field: str = "label",
    class_names: list[str] | None = None,
    templates: list[str] | None = None,
    cache_dir: LocalPath = "~/.cache/clipadapt/shards",
) -> Source:
    """Read images in uncompressed tar shards, each with a label beside it: x.cls (a number), x.json or x.txt (a word).

    If all images have several of them, the first of these is the label. Shards are given by a pattern, as
    'shards/train-{000..011}.tar' or 'shards/train-*.tar', or by their folder. Without validation shards, validation
    images are drawn from the pool; without test shards, the pool's images outside the support and validation sets are
    the test set.

    Args:
        root: The shards to learn from.
        validation: The shards of the validation split, if there are any.
        test: The shards of the test set, if there are any.
        field: The key of the label in a .json entry.
        class_names: Names of the classes, in order; needed if labels are numbers.
        templates: Sentences with {} for the class name; None for "a photo of a {}."
        cache_dir: The folder for the shards' indices; a shard that changed is indexed again.

    Raises:
        DataError: Shards are missing, no tar files or in two splits, images have no label, or labels no class.
    """
    folder = Path(cache_dir).expanduser()
    places = {"train": root, "val": validation, "test": test}
    shards = {split: find_shards(place) for split, place in places.items() if place is not None}
    if len(shards) == 1 and os.path.isdir(Path(root).expanduser()):
        shards = split_shards(root, shards["train"])
    check_disjoint({split: [str(shard.resolve()) for shard in found] for split, found in shards.items()}, "shard", root)
    left_out = LeftOut()
    with show_progress("indexing shards") as track:
        samples = {
            split: [sample for shard in track(found) for sample in load_index(shard, field, folder, left_out)]
            for split, found in shards.items()
        }
    say_left_out(root, left_out)
    kind = choose_label_extension([sample for found in samples.values() for sample in found], field)
    written = {split: [labels[kind] for _, labels in found] for split, found in samples.items()}
    names, numbers = encode_labels(written, class_names, root)
    splits = {
        split: Split(lazy_images([image for image, _ in found]), numbers[split]) for split, found in samples.items()
    }
    return to_source(Path(root).name, names, templates, splits)


def expand_braces(pattern: str) -> list[str]:
    """Expand the braces of a pattern: {000..011} to numbers, {a,b} to words.

    Raises:
        DataError: The braces stand for too many shards, or there are too many braces.
    """
    found = [pattern]
    for _ in range(MAX_BRACES):
        braces = re.search(r"\{([^{}]*)\}", found[0])
        if braces is None:
            return found
        words = brace_words(braces[1], pattern)
        if len(words) * len(found) > MAX_SHARDS:
            break
        found = [one.replace(braces[0], word, 1) for one in found for word in words]
    raise DataError(f"the braces of '{shorten(pattern)}' stand for more than {MAX_SHARDS:,} shards")


def brace_words(text: str, pattern: str) -> list[str]:
    """Return what a text between two braces stands for: 000..011 for numbers, a,b for words.

    Raises:
        DataError: The numbers are too many, or count backwards.
    """
    ends = re.fullmatch(r"([0-9]{1,18})\.\.([0-9]{1,18})", text)
    if ends is None:
        return text.split(",")
    numbers = range(int(ends[1]), int(ends[2]) + 1)
    if not 0 < len(numbers) <= MAX_SHARDS:
        count = f"{len(numbers):,} shards, and 1 to {MAX_SHARDS:,} are possible"
        raise DataError(f"{{{text}}} in '{shorten(pattern)}' stands for {count}")
    return [f"{number:0{len(ends[1])}d}" for number in numbers]


def find_shards(place: str) -> list[Path]:
    """Return the shards of a folder or a pattern, in natural order.

    Raises:
        DataError: There are none, or one of the pattern's shards is missing.
    """
    folder = Path(place).expanduser()
    patterns = [str(folder / "*.tar")] if os.path.isdir(folder) else expand_braces(str(folder))
    shards = [Path(path) for pattern in patterns for path in (glob.glob(pattern) or [pattern])]
    missing = [str(shard) for shard in shards if not os.path.isfile(shard)]
    if missing:
        inside = folder.glob("*") if os.path.isdir(folder) else ()
        packed = [path.name for path in inside if path.name.endswith(COMPRESSED)]
        advice = (
            f"; compressed shards can't be read, unpack {join_names(sorted(packed), SHOWN_NAMES)}" if packed else ""
        )
        raise DataError(f"shards of '{place}' are missing: {join_names(missing, SHOWN_NAMES)}{advice}")
    return sorted(shards, key=lambda shard: natural_order(str(shard)))


def split_shards(folder: str, shards: list[Path]) -> dict[str, list[Path]]:
    """Return the shards of each split if all in a folder are called by one, as train-000.tar and test-000.tar.

    They are told; otherwise all are to learn from.
    """
    groups: dict[str, list[Path]] = {}
    names = [shard.stem for shard in shards]
    for part, stems in group_by_split(names).items():
        groups[part] = [shard for shard in shards if shard.stem in stems]
    if "train" not in groups or sum(map(len, groups.values())) < len(shards) or len(groups) == 1:
        return {"train": shards}
    shown = ", ".join(f"{part} {found[0].name} …" for part, found in groups.items())
    notice(f"the shards of '{folder}' are taken for splits by their names: {shown}", stacklevel=3)
    return groups


def choose_label_extension(samples: Sequence[Sample], field: str) -> str:
    """Return the extension of the entries that hold the labels of all samples.

    Raises:
        DataError: Some samples have no label, or not one with the same extension.
    """
    for kind in LABEL_EXTENSIONS:
        if all(kind in labels for _, labels in samples):
            return kind
    there = [kind for kind in LABEL_EXTENSIONS if any(kind in labels for _, labels in samples)]
    if not there:
        raise DataError(
            f"the images of '{samples[0][0].shard}' have no labels beside them: a sample {samples[0][0].name} needs an "
            f'entry .cls (a number), .json (with "{field}"; data.field=… names another one) or .txt (a word)'
        )
    bare = [str(image) for image, labels in samples if there[0] not in labels]
    raise DataError(f"some images have a label .{there[0]}, and these have none: {join_names(bare, SHOWN_NAMES)}")
