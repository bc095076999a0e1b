"""Check of a finished run's settings, which may be untrusted, before anything is built from them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clipadapt.config.check import check, nodes
from clipadapt.config.composing import read_yaml
from clipadapt.config.tree import conf_dir, options, own_folder, own_modules
from clipadapt.errors import UserError
from clipadapt.paths import why_deceiving

SHOWN, LONGEST = 5, 300
PACKAGES = ("clipadapt", "torch")
"""Packages that targets are from; others are modules of a run's author."""


def saved_settings(config: Mapping[str, Any], path: Path, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Return a run's settings after checking that all their targets are allowed.

    The user's own modules that targets may be from are never taken from the settings: they follow from `config_dir`.
    Nor are a folder to write to and the permission to download.

    Args:
        config: The settings from the file.
        path: The file, for messages.
        config_dir: The user's own folder of YAML and modules.

    Raises:
        UserError: The settings don't fit their targets' signatures, a target isn't of the group of its place, or the
            backbone is an address that the user hasn't named.
    """
    folder, modules = own_folder(config_dir), own_modules(config_dir)
    own = {"allowed_targets": modules, "config_dir": None if folder is None else str(folder)}
    problems = list(dict.fromkeys(check({**config, **own}, saved=True)))
    problems = problems or [*check_address(config["backbone"], config_dir), *check_titles(config["method"])]
    if not problems:
        return {**config, "data": read_only(config["data"]), **own}
    shown = [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in problems[:SHOWN]]
    more = [f"and {len(problems) - SHOWN} problems more"] if len(problems) > SHOWN else []
    raise UserError(
        f"the settings in {path} can't be used: {'; '.join([*shown, *more, *ask_for_modules(config, modules)])}"
    )


def read_only(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings below `data` such that building them downloads nothing and writes only to usual folders.

    A data set that is downloaded at first use is only looked for in its folder; other sources keep indices, in the
    `cache_dir` of this machine.
    """
    if "download" in data:
        return {**data, "download": False}
    return {key: value for key, value in data.items() if key != "cache_dir"}


def check_address(backbone: Mapping[str, Any], config_dir: str | Path | None) -> Iterator[str]:
    """Yield a problem if a run's backbone is an address, and no YAML file of the package or the user names it.

    Names such as hf-hub:organisation/model and local-dir:folder are read with the settings that are found there, which
    can name code.
    """
    name = backbone["name"]
    files = options("backbone", config_dir).values()
    if ":" in name and name not in (read_yaml(file).get("name") for file in files):
        yield (
            f"backbone.name={name} is an address, and a run can't choose one by itself: if you trust it, put a "
            f"backbone/NAME.yaml that names it, as {conf_dir() / 'backbone' / 'open_clip.yaml'} does, into a folder of "
            "your own, and give that as --config-dir DIR, in Python config_dir=DIR"
        )


def check_titles(method: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem for each name of a run's method that terminals and pages don't show as it is."""
    for key in ("name", "title", "paper", "arxiv"):
        if reason := why_deceiving(method[key] or ""):
            yield f"method.{key} {reason.removeprefix('it ')}"


def ask_for_modules(config: Mapping[str, Any], modules: list[str]) -> Iterator[str]:
    """Yield a sentence if a run names modules of its author's own that the user hasn't given."""
    named = {str(node["_target_"]).partition(".")[0] for _, node in nodes(config)}
    missing = sorted(name for name in named - {*PACKAGES, *modules} if name.isidentifier())[:SHOWN]
    if missing:
        yield (
            f"the run was made with modules of its author's own ({', '.join(missing)[:LONGEST]}): if you trust them, "
            "give the folder that has them as --config-dir DIR, in Python config_dir=DIR"
        )
