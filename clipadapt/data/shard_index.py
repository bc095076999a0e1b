"""The index of a tar shard: the offsets of its images, and their labels, read once."""

import hashlib
import json
import tarfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image

from clipadapt.data.folders import extensions, is_hidden
from clipadapt.data.images import LazyImages, open_image, verify_image
from clipadapt.errors import DataError, WriteError
from clipadapt.files import IMAGE_SUFFIXES, make_folder, write_atomically

LABEL_EXTENSIONS = ("cls", "json", "txt")
"""Extensions of label entries; if all samples have several, the first is taken: a .txt beside a .cls or .json is a
caption."""

INDEX_FORMAT = 2
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


def load_index(shard: Path, field: str, folder: Path) -> list[Sample]:
    """Return the samples of a shard, from a cached index if the folder has one for the shard as it is now.

    The index is built otherwise, and cached if the folder can be written.
    """
    state = shard.stat()
    version = repr((INDEX_FORMAT, str(shard.resolve()), state.st_size, state.st_mtime_ns, field))
    path = folder / f"{shard.stem}-{hashlib.sha256(version.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError):
        entries = json.loads(path.read_text())
        return [(Member(str(shard), start, size, name), labels) for name, start, size, labels in entries]
    samples = build_index(shard, field)
    with suppress(WriteError):
        make_folder(folder)
        write_atomically(path, json.dumps([(image.name, image.start, image.size, labels) for image, labels in samples]))
    return samples


def build_index(shard: Path, field: str) -> list[Sample]:
    """Read the headers and labels of a shard in their order, but no images; hidden files are skipped.

    Raises:
        DataError: The file is no tar file, is compressed or truncated (which `tarfile` doesn't detect), has no images,
            or has two of one name.
    """
    images: dict[str, list[Member]] = {}
    labels: dict[str, Labels] = {}
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as file:
            for entry in filter(is_visible_file, archive):
                member = Member(str(shard), entry.offset_data, entry.size, entry.name)
                key, extension = key_and_extension(entry.name)
                if f".{extension}" in IMAGE_SUFFIXES:
                    images.setdefault(key, []).append(member)
                elif extension in LABEL_EXTENSIONS:
                    labels.setdefault(key, {}).update(parse_label(member, read(file, member), extension, field))
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
    if not images:
        raise DataError(f"the shard '{shard}' has no images (read are {', '.join(extensions())})")
    return [(image, labels.get(key, {})) for key, (image,) in images.items()]


def is_visible_file(entry: tarfile.TarInfo) -> bool:
    """Return whether an entry is a file, and neither it nor a folder it is in is hidden."""
    return entry.isfile() and not any(map(is_hidden, PurePosixPath(entry.name).parts))


def key_and_extension(name: str) -> tuple[str, str]:
    """Split an entry's name into the key that a sample's entries share, and the extension."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


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


def verify(member: Member) -> None:
    """Check an image's header; raises DataError if it is damaged."""
    verify_image(str(member), content(member))
