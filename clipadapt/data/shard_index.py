"""The entries of a tar shard, indexed once: where its images lie, to be read from there, and what its labels say."""

import hashlib
import json
import tarfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image

from clipadapt.data.folders import extensions, is_hidden
from clipadapt.data.images import LazyImages, open_image, verify_image
from clipadapt.errors import DataError
from clipadapt.files import IMAGE_SUFFIXES, write

KINDS = ("cls", "json", "txt")
"""Extensions of entries that may hold a label; of several in all samples, the first: words beside a label's number or
table are a caption."""

INDEX_FORMAT = 2
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
        write(kept, json.dumps([(image.name, image.start, image.size, labels) for image, labels in samples]))
    return samples


def index(shard: Path, field: str) -> list[Sample]:
    """Read the headers and labels of a shard, in its order, without any image; hidden files are left out.

    Raises:
        DataError: For a file that is no tar file, is compressed or cut off (which `tarfile` doesn't tell), has no
            images, or two of one name.
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
                elif extension in KINDS:
                    labels.setdefault(key, {}).update(label_of(member, read(file, member), extension, field))
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
        raise DataError(f"the label '{entry}' can't be read: {error}") from error
    if extension == "json":
        said = said.get(field) if isinstance(said, dict) else None
    text = "" if said is None else str(said).strip()
    return {extension: text} if text else {}


def pictures(members: list[Member]) -> LazyImages[Member]:
    """Image files in shards, loaded when asked for."""
    return LazyImages(members, load, verify, content)


def read(shard: BinaryIO, member: Member) -> bytes:
    """A file's bytes out of its open shard; raises DataError where that was cut off."""
    shard.seek(member.start)
    found = shard.read(member.size)
    if len(found) < member.size:
        raise DataError(f"'{member}' can't be read: the shard is cut off")
    return found


def content(member: Member) -> bytes:
    """A file's bytes; raises DataError where the shard can't be read or was cut off."""
    try:
        with open(member.shard, "rb") as shard:
            return read(shard, member)
    except OSError as error:
        raise DataError(f"'{member}' can't be read: {error}") from error


def load(member: Member) -> Image.Image:
    """The image, as upright RGB; raises DataError where it is damaged."""
    return open_image(str(member), content(member))


def verify(member: Member) -> None:
    """Check the image's header; raises DataError where it is damaged."""
    verify_image(str(member), content(member))
