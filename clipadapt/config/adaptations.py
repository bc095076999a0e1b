"""Lists a method's adaptations from its YAML, without composing a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config import groups
from clipadapt.config.composing import read_yaml
from clipadapt.config.targets import locate
from clipadapt.config.tree import options, own_modules

ADAPTATION, ALSO = "method.adaptation", "method.also."


def list_adaptations(method: str, config_dir: str | Path | None = None) -> list[tuple[Any, dict[str, Any]]]:
    """Return the class and the YAML settings of each adaptation of a method.

    Args:
        method: the method's name.
        config_dir: the user's own folder of YAML and modules.

    Raises:
        UserError: the method has no adaptation, a file can't be read, or a class doesn't exist or isn't allowed.
    """
    allowed = own_modules(config_dir)
    nodes = _nodes(method, config_dir)
    return [
        (locate(node.get("_target_"), groups.ADAPTATION, allowed), node)
        for node in [nodes.pop(ADAPTATION, {}), *nodes.values()]
    ]


def _nodes(method: str, config_dir: str | Path | None) -> dict[str, dict[str, Any]]:
    """Return each adaptation's settings by its key: from the methods that this one extends, its defaults, its own."""
    content = read_yaml(options("method", config_dir)[method])
    nodes: dict[str, dict[str, Any]] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and (base := entry.rpartition("/")[2]) in options("method", config_dir):
            nodes |= _nodes(base, config_dir)
        for key, choice in entry.items() if isinstance(entry, dict) else ():
            group, _, place = key.removeprefix("override ").lstrip("/").partition("@")
            if group == "adaptation" and choice in options(group, config_dir):
                nodes[place] = read_yaml(options(group, config_dir)[choice])
    for key, own in _own(content.get("method") or {}).items():
        nodes[key] = nodes.get(key, {}) | own
    return nodes


def _own(method: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each adaptation's settings in the body of a method's YAML, without its defaults list."""
    also = {f"{ALSO}{name}": node for name, node in (method.get("also") or {}).items()}
    return {key: node for key, node in ({ADAPTATION: method.get("adaptation")} | also).items() if node}
