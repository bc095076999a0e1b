"""Images in tar shards as WebDataset writes them: indexed once, then read by their place in the shard.

The entries of a sample share their name up to its first dot (https://github.com/webdataset/webdataset): dog/1.jpg is an
image, dog/1.cls the number of its class; or dog/1.json a table with its label, or dog/1.txt its class name.
"""

import glob
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image
from rich.progress import Progress

from clipadapt.console import make_console
from clipadapt.data.folders import EXTENSIONS, extensions, is_hidden, natural_order
from clipadapt.data.images import Pictures, open_image, verify_image
from clipadapt.data.labels import numbered, refuse_shared, source_of
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import UserError, listed

KINDS = ("cls", "json", "txt")
"""Extensions of entries that may hold a label; of several in all samples, the first: words beside a label's number or
table are a caption."""

INDEX_FORMAT = 2
SHOWN_NAMES = 3
Labels = dict[str, str]


class Member(NamedTuple):
    """A file in a shard: where its bytes begin, how many there are, and its name."""

    shard: str
    start: int
    size: int
    name: str

    def __str__(self) -> str:
        """Its name below the shard's."""
        return f"{self.shard}/{self.name}"


Sample = tuple[Member, Labels]
"""An image, and what its label entries say by their extension."""


def webdataset(
    root: str,
    validation: str | None = None,
    test: str | None = None,
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
        UserError: For shards that are missing, no tar files or of two splits, images without a label, and labels of no
            class.
    """
    kept = Path(cache_dir).expanduser()
    places = {"train": root, "val": validation, "test": test}
    shards = {split: shards_of(place) for split, place in places.items() if place is not None}
    refuse_shared({split: [str(shard.resolve()) for shard in found] for split, found in shards.items()}, "shard", root)
    with watched() as watch:
        samples = {
            split: [sample for shard in watch(found) for sample in indexed(shard, field, kept)]
            for split, found in shards.items()
        }
    kind = kind_of_labels([sample for found in samples.values() for sample in found], field)
    written = {split: [labels[kind] for _, labels in found] for split, found in samples.items()}
    names, numbers = numbered(written, class_names, root)
    splits = {split: Split(pictures([image for image, _ in found]), numbers[split]) for split, found in samples.items()}
    return source_of(Path(root).name, names, templates, splits)


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
        UserError: There are none, or one that the pattern says is missing.
    """
    folder = Path(place).expanduser()
    patterns = [str(folder / "*.tar")] if folder.is_dir() else expanded(str(folder))
    shards = [Path(path) for pattern in patterns for path in (glob.glob(pattern) or [pattern])]
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(f"there is no shard {' and no '.join(missing[:SHOWN_NAMES])}, which '{place}' stands for")
    return sorted(shards, key=lambda shard: natural_order(str(shard)))


def indexed(shard: Path, field: str, folder: Path) -> list[Sample]:
    """The samples of a shard, from its index in a folder where there is one for the shard as it is now.

    Where the folder can't be written, the index is not kept.
    """
    state = shard.stat()
    what = repr((INDEX_FORMAT, str(shard.resolve()), state.st_size, state.st_mtime_ns, field))
    kept = folder / f"{shard.stem}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError):
        entries = json.loads(kept.read_text())
        return [(Member(str(shard), start, size, name), labels) for name, start, size, labels in entries]
    samples = index(shard, field)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps([(image.name, image.start, image.size, labels) for image, labels in samples]))
        os.replace(part, kept)
    return samples


def index(shard: Path, field: str) -> list[Sample]:
    """Read the headers and labels of a shard, in its order, without any image; hidden files are left out.

    Raises:
        UserError: For a file that is no tar file, is compressed or cut off (which `tarfile` doesn't tell), has no
            images, or two of one name.
    """
    images: dict[str, list[Member]] = {}
    labels: dict[str, Labels] = {}
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as file:
            for entry in filter(is_visible_file, archive):
                member = Member(str(shard), entry.offset_data, entry.size, entry.name)
                key, extension = key_and_extension(entry.name)
                if f".{extension}" in EXTENSIONS:
                    images.setdefault(key, []).append(member)
                elif extension in KINDS:
                    labels.setdefault(key, {}).update(label_of(member, read(file, member), extension, field))
            end = Member(str(shard), archive.offset, tarfile.BLOCKSIZE, "its end")
            if read(file, end).strip(b"\0"):
                raise tarfile.ReadError("what follows its last file isn't the end of an archive")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"the shard '{shard}' is no whole, uncompressed tar file: {error}") from error
    twice = [found for found in images.values() if len(found) > 1]
    if twice:
        raise UserError(f"the shard '{shard}' has two images of one name: {twice[0][0].name} and {twice[0][1].name}")
    if not images:
        raise UserError(f"the shard '{shard}' has no images (read are {', '.join(extensions())})")
    return [(image, labels.get(key, {})) for key, (image,) in images.items()]


def is_visible_file(entry: tarfile.TarInfo) -> bool:
    """Whether an entry is a file, and neither it nor a folder that it is in is hidden."""
    return entry.isfile() and not any(map(is_hidden, PurePosixPath(entry.name).parts))


def key_and_extension(name: str) -> tuple[str, str]:
    """What the entries of a sample share of their names, and what says what an entry is."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def label_of(entry: Member, content: bytes, extension: str, field: str) -> Labels:
    """What a label entry says, by its extension; nothing where a table lacks the field or it is empty."""
    try:
        said = json.loads(content) if extension == "json" else content.decode()
    except ValueError as error:
        raise UserError(f"the label '{entry}' can't be read: {error}") from error
    if extension == "json":
        said = said.get(field) if isinstance(said, dict) else None
    text = "" if said is None else str(said).strip()
    return {extension: text} if text else {}


def kind_of_labels(samples: Sequence[Sample], field: str) -> str:
    """The extension of the entries that are the labels of all samples.

    Raises:
        UserError: Some samples have none, or others than the rest.
    """
    for kind in KINDS:
        if all(kind in labels for _, labels in samples):
            return kind
    there = [kind for kind in KINDS if any(kind in labels for _, labels in samples)]
    if not there:
        raise UserError(
            f"the images of '{samples[0][0].shard}' have no labels beside them: a sample {samples[0][0].name} needs an "
            f'entry .cls (a number), .json (with "{field}") or .txt (a word)'
        )
    bare = [str(image) for image, labels in samples if there[0] not in labels]
    raise UserError(f"some images have a label .{there[0]}, and these have none: {listed(bare, SHOWN_NAMES)}")


def pictures(members: list[Member]) -> Pictures[Member]:
    """Image files in shards, loaded when asked for."""
    return Pictures(members, load, verify, content)


def read(shard: BinaryIO, member: Member) -> bytes:
    """A file's bytes out of its open shard; raises UserError where that was cut off."""
    shard.seek(member.start)
    found = shard.read(member.size)
    if len(found) < member.size:
        raise UserError(f"'{member}' can't be read: the shard is cut off")
    return found


def content(member: Member) -> bytes:
    """A file's bytes; raises UserError where the shard can't be read or was cut off."""
    try:
        with open(member.shard, "rb") as shard:
            return read(shard, member)
    except OSError as error:
        raise UserError(f"'{member}' can't be read: {error}") from error


def load(member: Member) -> Image.Image:
    """The image, as upright RGB; raises UserError where it is damaged."""
    return open_image(str(member), content(member))


def verify(member: Member) -> None:
    """Check the image's header; raises UserError where it is damaged."""
    verify_image(str(member), content(member))
