"""The index of a tar shard: the offsets of its images, and their labels, read once."""

import hashlib
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image

from clipadapt.data.formats import describe_suffixes, image_suffixes
from clipadapt.data.images import LazyImages, open_image, verify_image
from clipadapt.data.listing import HIDDEN, LeftOut, is_hidden
from clipadapt.errors import DataError, WriteError
from clipadapt.files import make_folder, write_atomically

LABEL_EXTENSIONS = ("cls", "json", "txt")
"""Extensions of label entries; if all samples have several, the first is taken: a .txt beside a .cls or .json is a
caption."""

INDEX_FORMAT = 3
Labels = dict[str, str]


class Member(NamedTuple):
    """A file in a shard: the shard, the offset and number of its bytes, and its name."""

    shard: str
    start: int
    size: int
    name: str

    def __str__(self) -> str:
        """Return the shard's path and the file's name in it."""
        return f"{self.shard}/{self.name}"


Sample = tuple[Member, Labels]
"""An image, and its labels by the extension of their entries."""


def load_index(shard: Path, field: str, folder: Path, left_out: LeftOut) -> list[Sample]:
    """Return the samples of a shard, from a cached index if the folder has one for the shard as it is now.

    Counts the entries that are neither images nor labels.

    The index is built otherwise, and cached if the folder can be written.
    """
    state = shard.stat()
    version = repr((INDEX_FORMAT, str(shard.resolve()), state.st_size, state.st_mtime_ns, field))
    path = folder / f"{shard.stem}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError):
        entries, counts = json.loads(path.read_text())
        left_out.update(counts)
        return [(Member(str(shard), start, size, name), labels) for name, start, size, labels in entries]
    counted = LeftOut()
    samples = build_index(shard, field, counted)
    left_out.update(counted)
    with suppress(WriteError):
        make_folder(folder)
        entries = [(image.name, image.start, image.size, labels) for image, labels in samples]
        write_atomically(path, json.dumps([entries, counted]))
    return samples


def build_index(shard: Path, field: str, left_out: LeftOut) -> list[Sample]:
    """Read the headers and labels of a shard in their order, but no images; counts entries that are neither, or hidden.

    An image beside another one of its sample, such as 7.mask.png beside 7.jpg, is left out and counted, too.

    Raises:
        DataError: The file is no tar file, is compressed or truncated (which `tarfile` doesn't detect), has no images,
            or has two of one name.
    """
    images: dict[str, list[Member]] = {}
    labels: dict[str, Labels] = {}
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as file:
            for entry in filter(tarfile.TarInfo.isfile, archive):
                member = Member(str(shard), entry.offset_data, entry.size, entry.name)
                key, extension = key_and_extension(entry.name)
                if is_in_hidden_place(entry.name):
                    left_out[HIDDEN] += 1
                elif f".{extension}" in image_suffixes():
                    images.setdefault(key, []).append(member)
                elif extension in LABEL_EXTENSIONS:
                    labels.setdefault(key, {}).update(parse_label(member, read(file, member), extension, field))
                else:
                    left_out[f".{extension}" if extension else "without an ending"] += 1
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if len(end) < tarfile.BLOCKSIZE:
                raise DataError(f"the shard '{shard}' is cut off: write or fetch it again")
            if end.strip(b"\0"):
                raise tarfile.ReadError("what follows its last file isn't the end of an archive")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"the shard '{shard}' is no whole, uncompressed tar file: {error}") from error
    twice = [found for found in images.values() if len(found) > 1]
    if twice:
        raise DataError(f"the shard '{shard}' has two images of one name: {twice[0][0].name} and {twice[0][1].name}")
    for key in [key for key in images if first_key(key) != key and first_key(key) in images]:
        left_out[images.pop(key)[0].name.removeprefix(first_key(key))] += 1
    if not images:
        raise DataError(f"the shard '{shard}' has no images (read are {describe_suffixes()})")
    return [(image, find_labels(labels, key)) for key, (image,) in images.items()]


def is_in_hidden_place(name: str) -> bool:
    """Return whether an entry, or a folder that it is in, is hidden."""
    return any(is_hidden(part) for part in PurePosixPath(name).parts if part != ".")


def key_and_extension(name: str) -> tuple[str, str]:
    """Split an entry's name at its last dot into the key that a sample's entries share, and the extension."""
    folder, slash, file = name.rpartition("/")
    stem, dot, extension = file.rpartition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if dot else (name, "")


def find_labels(labels: Mapping[str, Labels], key: str) -> Labels:
    """Return the labels of a sample: those of its whole key, or of the key up to its first dot.

    The label of photo.v2.jpg is photo.v2.cls or photo.cls.
    """
    return labels.get(key) or labels.get(first_key(key), {})


def first_key(key: str) -> str:
    """Return a key up to the first dot of its file's name: 7.mask.png beside 7.jpg is a part of that sample."""
    folder, slash, file = key.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def parse_label(entry: Member, content: bytes, extension: str, field: str) -> Labels:
    """Return the label in an entry, by the entry's extension; nothing if the label or its field is missing or empty."""
    try:
        label = json.loads(content) if extension == "json" else content.decode()
    except ValueError as error:
        raise DataError(f"the label '{entry}' can't be read: {error}") from error
    if extension == "json":
        label = label.get(field) if isinstance(label, dict) else None
    text = "" if label is None else str(label).strip()
    return {extension: text} if text else {}


def lazy_images(members: list[Member]) -> LazyImages[Member]:
    """Return image files in shards as images that are loaded on access."""
    return LazyImages(members, load, verify, content)


def read(shard: BinaryIO, member: Member) -> bytes:
    """Read a file's bytes from its open shard; raises DataError if the shard is truncated."""
    shard.seek(member.start)
    found = shard.read(member.size)
    if len(found) < member.size:
        raise DataError(f"'{member}' can't be read: the shard is cut off")
    return found


def content(member: Member) -> bytes:
    """Read a file's bytes; raises DataError if the shard can't be read or is truncated."""
    try:
        with open(member.shard, "rb") as shard:
            return read(shard, member)
    except OSError as error:
        raise DataError(f"'{member}' can't be read: {error}") from error


def load(member: Member) -> Image.Image:
    """Load an image as upright RGB; raises DataError if it is damaged."""
    return open_image(str(member), content(member))


def verify(member: Member) -> bool:
    """Check an image's header, as `verify_image` does; raises DataError if it is damaged."""
    return verify_image(str(member), content(member))
