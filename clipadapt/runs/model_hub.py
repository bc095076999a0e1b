"""Artifacts on the Hugging Face hub."""

import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipadapt.data.network import find_connection_error
from clipadapt.errors import UserError
from clipadapt.paths import checked_path, shorten

if TYPE_CHECKING:
    from clipadapt.runs.learned import LearnedModel

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_repository(name: str) -> bool:
    """Return whether a text can be the name of a repository of the hub, "user/name"."""
    return REPOSITORY.fullmatch(name) is not None


def find_learned(source: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """Return the folder of a run or an artifact: the one of that name, or a copy of a repository of the hub.

    Args:
        source: a folder, or "user/name", where no folder has that name.
        revision: a branch, tag or commit of the repository; None for its main branch.
        token: of the hub; None for that of `hf auth login`.

    Raises:
        UserError: there is neither.
    """
    folder = checked_path(source, "the run directory")
    if folder.exists() or not is_repository(str(source)):
        if revision is not None:
            raise UserError(f"revision={shorten(str(revision))} belongs to a repository of the hub, as in user/name")
        return folder
    return fetch(str(source), revision, token)


def fetch(repo_id: str, revision: str | None, token: str | None) -> Path:
    """Return the folder with a copy of an artifact on the hub; the one fetched before where the hub can't be reached.

    Raises:
        UserError: no folder and no repository has this name, it has no artifact, or it can't be read.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from clipadapt.runs.artifact import FILES, SETTINGS  # needs torch

    def download(local: bool) -> Path:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                allow_patterns=[*FILES],
                local_files_only=local,
                endpoint=constants.ENDPOINT,
            )
        )

    reason = find_connection_error()
    if reason is None:
        with hub_errors(repo_id, revision):
            folder = download(local=False)
    else:
        try:
            folder = download(local=True)
        except LocalEntryNotFoundError as error:
            raise UserError(
                f"there is no folder {repo_id} here, and the Hugging Face hub can't be asked for it: {reason}"
            ) from error
        warnings.warn(f"{repo_id} is the copy fetched before: the hub can't be reached ({reason})", stacklevel=2)
    if not (folder / SETTINGS).is_file():
        raise UserError(
            f"{repo_id} on the Hugging Face hub has no {SETTINGS}, which clipadapt push writes: it is no artifact"
        )
    return folder


def push(
    learned: "LearnedModel",
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Write an artifact to a repository of the hub and return its URL; arguments as of `Predictor.push_to_hub`.

    Raises:
        UserError: the hub can't be reached, or refuses; nothing of the artifact is there then.
    """
    from huggingface_hub import HfApi, constants

    from clipadapt.runs.artifact import CARD, FILES, write_artifact  # needs torch

    if not is_repository(repo_id):
        raise UserError(f"{shorten(repo_id)} is no name of a repository: it must be user/name, as in me/my_model")
    title = f"clipadapt: {learned.config['method']['name']} on {learned.result.record['task']}"
    with tempfile.TemporaryDirectory() as place:
        folder = write_artifact(learned, Path(place) / "artifact")
        if (reason := find_connection_error()) is not None:
            raise UserError(f"the Hugging Face hub can't be reached: {reason}")
        api = HfApi(endpoint=constants.ENDPOINT, token=token)
        with hub_errors(repo_id, revision):
            url = api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            kept = api.file_exists(repo_id, CARD, revision=revision)
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message or title,
                allow_patterns=[name for name in FILES if not (kept and name == CARD)],
            )
    if kept:
        warnings.warn(f"{repo_id} had a {CARD} already, which stays as it is", stacklevel=3)
    return str(url)


@contextmanager
def hub_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Raise a UserError in one sentence if the hub refuses what is done in the `with` block.

    Raises:
        UserError: it does.
    """
    from huggingface_hub import errors

    told: list[tuple[Any, str]] = [
        (errors.GatedRepoError, f"{repo_id} on the Hugging Face hub asks for consent: give it on its page, once"),
        (
            errors.RepositoryNotFoundError,
            f"there is no folder {repo_id} here, and no repository of that name on the Hugging Face hub that this "
            "account may see: `hf auth login`, or token=…, says who you are",
        ),
        (errors.RevisionNotFoundError, f"{repo_id} on the Hugging Face hub has no revision {revision}"),
    ]
    try:
        yield
    except Exception as error:  # the client's own, and those of its transport by its version
        for kind, sentence in told:
            if isinstance(error, kind):
                raise UserError(sentence) from error
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
            raise UserError(
                f"the Hugging Face hub doesn't let this account do that with {repo_id}: `hf auth login` with a token "
                "that may write, or token=…"
            ) from error
        if isinstance(error, OSError | errors.HfHubHTTPError | RuntimeError) or "http" in type(error).__module__:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"the exchange with the Hugging Face hub about {repo_id} failed: {reason}") from error
        raise
