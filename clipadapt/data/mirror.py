"""Prepared data sets, fetched from a mirror on the Hugging Face hub."""

import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from clipadapt.errors import UserError

MIRROR = "zhengli97/prompt_learning_dataset"
"""Its README: all data sets that papers on prompt learning use, ImageNet excepted, each with its split_zhou_*.json."""
INSTRUCTIONS = "prepare it as CoOp's instructions say (github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md)"
SHA256_LENGTH = 64


def fetch(folder: str, home: Path, endpoint: str | None = None) -> Path:
    """Fetch a prepared data set and unpack it into the folder of all data sets; where it is.

    The archive is checked against the hub's checksum and unpacked beside its place, to be moved there whole. A download
    that was stopped goes on.

    Args:
        folder: of the data set, as CoOp's instructions name it: "dtd", "caltech-101".
        home: the folder of all data sets; made where it is missing.
        endpoint: of another hub.

    Raises:
        UserError: it is there, the mirror doesn't have it, or what came is damaged.
    """
    place = home / folder
    if place.exists():
        raise UserError(f"{place} is there: move it away to fetch it again")
    archive = download(folder, endpoint)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{folder}-") as beside:
        content = Path(beside, folder)
        try:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(content)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"the archive {archive} can't be unpacked: {error}") from error
        os.replace(unpacked(content), place)
    return place


def download(folder: str, endpoint: str | None) -> Path:
    """The archive of a data set's folder, from the hub or its cache.

    Raises:
        UserError: the mirror can't be reached or doesn't have it, or the file isn't what the hub says it is.
    """
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        names = [name for name in HfApi(endpoint=endpoint).list_repo_files(MIRROR) if name.endswith(".zip")]
        found = next((name for name in names if plain(Path(name).stem) == plain(folder)), None)
        if found is None:
            known = ", ".join(sorted(Path(name).stem for name in names))
            raise UserError(f"the mirror {MIRROR} has no {folder} (it has {known}): {INSTRUCTIONS}")
        expected = get_hf_file_metadata(hf_hub_url(MIRROR, found, endpoint=endpoint)).etag
        archive = Path(hf_hub_download(MIRROR, found, endpoint=endpoint))
    except UserError:
        raise
    except Exception as error:  # the hub's client raises its own errors, httpx's and OSError
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the mirror {MIRROR} can't be reached ({reason}): try again, or {INSTRUCTIONS}") from error
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and len(expected) == SHA256_LENGTH and digest != expected:
        archive.unlink()
        raise UserError(f"{found} came damaged from the mirror {MIRROR}, and was deleted: try again")
    return archive


def unpacked(folder: Path) -> Path:
    """The data set among what an archive held: its one folder, or all of it."""
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
    held = [*folder.iterdir()]
    return held[0] if len(held) == 1 and held[0].is_dir() else folder


def plain(name: str) -> str:
    """A name in small letters and digits alone."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
