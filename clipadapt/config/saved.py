"""Check of a finished run's settings, which may be untrusted, before anything is built from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config.check import check
from clipadapt.config.tree import own_folder, own_modules
from clipadapt.errors import UserError

SHOWN, LONGEST = 5, 300


def saved_settings(config: Mapping[str, Any], path: Path, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Return a run's settings after checking that all their targets are allowed.

    The user's own modules that targets may be from are never taken from the settings: they follow from `config_dir`.

    Args:
        config: The settings from the file.
        path: The file, for messages.
        config_dir: The user's own folder of YAML and modules.

    Raises:
        UserError: The settings don't fit their targets' signatures, or a target isn't of the group of its place.
    """
    folder = own_folder(config_dir)
    own = {"allowed_targets": own_modules(config_dir), "config_dir": None if folder is None else str(folder)}
    problems = [*dict.fromkeys(check({**config, **own}, saved=True))]
    if not problems:
        return {**config, **own}
    shown = [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in problems[:SHOWN]]
    more = f"; and {len(problems) - SHOWN} problems more" if len(problems) > SHOWN else ""
    raise UserError(f"the settings in {path} can't be used: {'; '.join(shown)}{more}")
