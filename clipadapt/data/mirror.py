"""Prepared data sets, fetched from a mirror on the Hugging Face hub."""

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from clipadapt.data.network import unreached
from clipadapt.errors import DataError

MIRROR = "zhengli97/prompt_learning_dataset"
"""Its README: all data sets that papers on prompt learning use, ImageNet excepted, each with its split_zhou_*.json."""
REVISION = "ceb3112337fb6e1bf71534e355ca5569b63f19a6"
"""The mirror's commit, whose checksums don't change: the one that github.com/dczyjh/HAPR-LAPR takes, in
docs/ASSET_PREPARATION.md."""
INSTRUCTIONS = "prepare it as CoOp's instructions say (github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md)"
ELSEWHERE = {"imagenet": "https://image-net.org", "imagenet-c": "https://zenodo.org/records/2235448"}
"""Where the data sets are to be had that the mirror lacks, by their folders."""
SHA256_LENGTH = 64
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
"""What `zipfile` raises of an archive that is damaged, encrypted or compressed in a way that it doesn't know."""


def fetch(needed: Sequence[str], home: Path, endpoint: str | None = None) -> Path:
    """Fetch a prepared data set and unpack it into the folder of all data sets; where it is.

    The archive is checked against the hub's checksum and unpacked beside its place, to be moved there whole. A download
    that was stopped goes on. Another process that fetches the same data set is waited for.

    Args:
        needed: files and folders that the data set must have, as paths from `home`, all in the folder that CoOp's
            instructions name: "dtd/images", "dtd/split_zhou_DescribableTextures.json".
        home: the folder of all data sets; made where it is missing.
        endpoint: of another hub.

    Raises:
        DataError: it is there, the home can't be used, the mirror doesn't have it, or what came is damaged or lacks
            what is needed.
    """
    folder = Path(needed[0]).parts[0]
    place = home / folder
    if os.path.exists(place):  # Path.exists raises where it may not look
        raise DataError(f"{place} is there: move it away to fetch it again")
    if folder in ELSEWHERE:
        raise DataError(f"{folder} can't be fetched from here: get it from {ELSEWHERE[folder]}, and {INSTRUCTIONS}")
    with locked(home, folder):
        if not place.exists():
            unpack(download(folder, endpoint), place, needed)
    return place


@contextmanager
def locked(home: Path, folder: str) -> Iterator[None]:
    """Make the folder of all data sets, and keep others from fetching one of them to it.

    Raises:
        DataError: nothing can be made there.
    """
    file = home / f".{folder}.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise DataError(
            f"the folder of data sets '{home}' can't be used ({error.strerror}): name another one by the variable "
            "CLIPADAPT_DATA, or as data.home=…"
        ) from error
    with FileLock(file):
        yield


def unpack(archive: Path, place: Path, needed: Sequence[str]) -> None:
    """Unpack an archive beside a data set's place, and move what it holds there if that is all that is needed.

    Raises:
        DataError: it can't be unpacked, or lacks something.
    """
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(part)
        found = unpacked(part)
        missing = [path for path in needed if not found.joinpath(*Path(path).parts[1:]).exists()]
        if missing:
            raise DataError(f"the archive {archive} has no {' and no '.join(missing)}: {INSTRUCTIONS}")
        os.replace(found, place)
    except UNREADABLE as error:
        raise DataError(f"the archive {archive} can't be unpacked: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def download(folder: str, endpoint: str | None) -> Path:
    """The archive of a data set's folder, from the hub or its cache.

    Raises:
        DataError: the mirror can't be reached or doesn't have it, or the file isn't what the hub says it is.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if reason := unreached(endpoint):
        raise DataError(f"the mirror {MIRROR} can't be reached ({reason}): try again, or {INSTRUCTIONS}")
    try:
        files = HfApi(endpoint=endpoint).list_repo_files(MIRROR, revision=REVISION)
        names = [name for name in files if name.endswith(".zip")]
        found = next((name for name in names if plain(Path(name).stem) == plain(folder)), None)
        if found is None:
            known = ", ".join(sorted(Path(name).stem for name in names))
            raise DataError(f"the mirror {MIRROR} has no {folder} (it has {known}): {INSTRUCTIONS}")
        expected = get_hf_file_metadata(hf_hub_url(MIRROR, found, revision=REVISION, endpoint=endpoint)).etag
        archive = Path(hf_hub_download(MIRROR, found, revision=REVISION, endpoint=endpoint))
    except DataError:
        raise
    except Exception as error:  # the hub's client raises its own errors, httpx's and OSError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the mirror {MIRROR} can't be reached ({reason}): try again, or {INSTRUCTIONS}") from error
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and len(expected) == SHA256_LENGTH and digest != expected:
        archive.resolve().unlink()  # what the hub's cache links to: the link alone would be made again
        archive.unlink(missing_ok=True)
        raise DataError(f"{found} came damaged from the mirror {MIRROR}, and was deleted: try again")
    return archive


def unpacked(folder: Path) -> Path:
    """The data set among what an archive held: its one folder, or all of it."""
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
    held = [*folder.iterdir()]
    return held[0] if len(held) == 1 and held[0].is_dir() else folder


def plain(name: str) -> str:
    """A name in small letters and digits alone."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
