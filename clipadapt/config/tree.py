"""Find YAML files: in the package's tree, and in the user's own folder."""

import os
import sys
from pathlib import Path

from clipadapt.errors import SettingsError
from clipadapt.paths import checked_path, why_unusable

LONGEST = 100
"""Letters of a group's name."""


def conf_dir() -> Path:
    """Return the folder of the YAML files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "conf", package.parent / "conf"):
        if (place / "config.yaml").is_file():
            return place
    raise SettingsError(f"the settings that ship with clipadapt are missing from {package / 'conf'}: install it again")


def own_folder(config_dir: str | Path | None) -> Path | None:
    """Return the user's folder of settings, and put it on the import path so that its modules can be targets.

    Raises:
        SettingsError: the folder doesn't exist.
    """
    if config_dir is None:
        return None
    folder = checked_path(config_dir, "--config-dir").resolve()
    if not os.path.isdir(folder):
        raise SettingsError(f"--config-dir {config_dir}: there is no such folder")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


def own_modules(config_dir: str | Path | None) -> list[str]:
    """Return the names of the modules in a user's folder, which its YAML may name as targets."""
    folder = own_folder(config_dir)
    if folder is None:
        return []
    found = [path.stem for path in folder.glob("*.py")] + [path.parent.name for path in folder.glob("*/__init__.py")]
    return sorted({name for name in found if name.isidentifier()})


def options(group: str, config_dir: str | Path | None = None) -> dict[str, Path]:
    """Return the YAML files of a group by name, the user's included; the package's wins if both have a name."""
    if why_unusable(group) or len(group) > LONGEST:
        return {}
    folders = [folder for folder in (own_folder(config_dir), conf_dir()) if folder is not None]
    return dict(sorted({path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}.items()))
