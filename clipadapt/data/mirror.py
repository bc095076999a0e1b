"""Downloads of prepared data sets from a mirror on the Hugging Face hub."""

import hashlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from clipadapt.data.network import find_connection_error
from clipadapt.errors import DataError

MIRROR = "zhengli97/prompt_learning_dataset"
"""Its README: all data sets that papers on prompt learning use, ImageNet excepted, each with its split_zhou_*.json."""
REVISION = "ceb3112337fb6e1bf71534e355ca5569b63f19a6"
"""The mirror's commit, whose checksums don't change: the one that github.com/dczyjh/HAPR-LAPR takes, in
docs/ASSET_PREPARATION.md."""
INSTRUCTIONS = "prepare it as CoOp's instructions say (github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md)"
NOT_ON_MIRROR = {"imagenet": "https://image-net.org", "imagenet-c": "https://zenodo.org/records/2235448"}
"""Addresses of data sets that the mirror lacks, by folder."""
SHA256_LENGTH = 64
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
"""Errors that `zipfile` raises for an archive that is damaged, encrypted or compressed by an unknown method."""


def fetch(needed: Sequence[str], home: Path, endpoint: str | None = None) -> Path:
    """Download a prepared data set, unpack it into the folder of all data sets, and return its folder.

    The archive is checked against the hub's checksum, unpacked to a temporary folder and moved into place whole. An
    interrupted download is resumed. If another process fetches the same data set, this one waits for it.

    Args:
        needed: files and folders that the data set must have, as paths relative to `home`, all in the folder named by
            CoOp's instructions: "dtd/images", "dtd/split_zhou_DescribableTextures.json".
        home: the folder of all data sets; created if missing.
        endpoint: the address of another hub.

    Raises:
        DataError: the data set exists already, `home` can't be used, the mirror lacks the data set, or the archive is
            damaged or incomplete.
    """
    folder = Path(needed[0]).parts[0]
    place = home / folder
    if os.path.exists(place):  # Path.exists raises where it may not look
        raise DataError(f"{place} is there: move it away to fetch it again")
    if folder in NOT_ON_MIRROR:
        raise DataError(f"{folder} can't be fetched from here: get it from {NOT_ON_MIRROR[folder]}, and {INSTRUCTIONS}")
    with lock_home(home, folder):
        if not place.exists():
            unpack(download(folder, endpoint), place, needed)
    return place


@contextmanager
def lock_home(home: Path, folder: str) -> Iterator[None]:
    """Create the folder of all data sets, and keep other processes from fetching the same data set to it.

    Raises:
        DataError: the folder can't be created or written to.
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
    """Unpack an archive beside a data set's place, and move the data set there if it has all needed files.

    Raises:
        DataError: the archive can't be unpacked, or is incomplete.
    """
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(part)
        found = find_data_set(part)
        missing = [path for path in needed if not found.joinpath(*Path(path).parts[1:]).exists()]
        if missing:
            raise DataError(f"the archive {archive} has no {' and no '.join(missing)}: {INSTRUCTIONS}")
        os.replace(found, place)
    except UNREADABLE as error:
        raise DataError(f"the archive {archive} can't be unpacked: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def download(folder: str, endpoint: str | None) -> Path:
    """Return the archive of a data set's folder, from the hub or its cache.

    Raises:
        DataError: the mirror can't be reached or lacks the data set, or the file doesn't match the hub's checksum.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

    if reason := find_connection_error(endpoint):
        raise DataError(f"the mirror {MIRROR} can't be reached ({reason}): try again, or {INSTRUCTIONS}")
    try:
        files = HfApi(endpoint=endpoint).list_repo_files(MIRROR, revision=REVISION)
        names = [name for name in files if name.endswith(".zip")]
        found = next((name for name in names if alphanumeric(Path(name).stem) == alphanumeric(folder)), None)
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
        archive.resolve().unlink()  # the file that the hub's cache links to: only the link would be replaced
        archive.unlink(missing_ok=True)
        raise DataError(f"{found} came damaged from the mirror {MIRROR}, and was deleted: try again")
    return archive


def find_data_set(folder: Path) -> Path:
    """Return the data set's folder in an unpacked archive: its only folder, or else all of it."""
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
    entries = [*folder.iterdir()]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def alphanumeric(name: str) -> str:
    """Return a name's letters, in lower case, and digits."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
