"""List the sources of images that settings can name, and build one of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config.building import build
from clipadapt.config.composing import composer, to_container
from clipadapt.config.tree import options


def sources(config_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """Return name, description (the first comment of its YAML) and settings of every source."""
    found = []
    with composer(config_dir) as compose_with:
        for name, path in options("data", config_dir).items():
            settings = to_container(compose_with([f"data={name}"]), config_dir)["data"]
            found.append({"name": name, "about": first_comment(path), "data": settings})
    return found


def first_comment(path: Path) -> str:
    """Return the first line of the comment that a YAML file begins with; empty without one."""
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return first.lstrip("#").strip() if first.startswith("#") and not first.startswith("# @package") else ""


def build_source(config: Mapping[str, Any]) -> Any:
    """Build the source that composed settings name.

    Raises:
        UserError: images are missing or can't make a task, or a target isn't allowed.
    """
    return build(config["data"], place="data", allowed=config["allowed_targets"])
