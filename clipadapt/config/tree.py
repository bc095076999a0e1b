"""Where the YAML files are: the package's tree, and a folder of a user's own."""

import sys
from pathlib import Path

from clipadapt.errors import UserError


def conf_dir() -> Path:
    """The tree of YAML files: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for place in (package / "conf", package.parent / "conf"):
        if (place / "config.yaml").is_file():
            return place
    raise UserError(f"the settings that ship with clipadapt are missing from {package / 'conf'}: install it again")


def own_folder(config_dir: str | Path | None) -> Path | None:
    """A user's folder of settings, put on the import path so that its modules can be targets.

    Raises:
        UserError: there is no such folder.
    """
    if config_dir is None:
        return None
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


def own_modules(config_dir: str | Path | None) -> list[str]:
    """Names of the modules in a user's folder, which its YAML may name as targets."""
    folder = own_folder(config_dir)
    if folder is None:
        return []
    found = [path.stem for path in folder.glob("*.py")] + [path.parent.name for path in folder.glob("*/__init__.py")]
    return sorted({name for name in found if name.isidentifier()})


def options(group: str, config_dir: str | Path | None = None) -> dict[str, Path]:
    """The YAML files of a group by name, a user's own included; of two with one name the package's."""
    folders = [folder for folder in (own_folder(config_dir), conf_dir()) if folder is not None]
    return dict(sorted({path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}.items()))
