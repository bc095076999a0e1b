"""Settings of a finished run, which may be somebody else's: checked as data before anything is made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config.check import check
from clipadapt.config.tree import own_folder, own_modules
from clipadapt.errors import UserError

SHOWN, LONGEST = 5, 300


def saved_settings(config: Mapping[str, Any], path: Path, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Return the settings of a run, of which everything may be built that they name.

    Which modules of the user's own may be named is never taken from them: it follows from `config_dir`.

    Args:
        config: The settings as they were read.
        path: The file that they are from.
        config_dir: A folder of the user's own.

    Raises:
        UserError: They don't fit what they are for, or name anything but the classes of its place.
    """
    folder = own_folder(config_dir)
    own = {"allowed_targets": own_modules(config_dir), "config_dir": None if folder is None else str(folder)}
    problems = [*dict.fromkeys(check({**config, **own}, saved=True))]
    if not problems:
        return {**config, **own}
    said = [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in problems[:SHOWN]]
    more = f"; and {len(problems) - SHOWN} problems more" if len(problems) > SHOWN else ""
    raise UserError(f"the settings in {path} can't be used: {'; '.join(said)}{more}")
