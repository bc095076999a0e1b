"""Name the directory of a run by its settings alone, so that all processes and later reruns use the same one."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipadapt.config.check import leaves
from clipadapt.config.composing import gather, read_yaml
from clipadapt.config.tree import options
from clipadapt.paths import MAX_NAME, checked_path

RESULT_NEUTRAL = (
    "output",
    "rerun",
    "experiment",
    "allowed_targets",
    "config_dir",
    "data.home",
    "data.cache_dir",
    "data.download",
    "engine.cpu",
    "engine.workers",
    "engine.memory",
    "engine.keep_mb",
    "engine.cache",
    "engine.cache_gb",
    "engine.activation_checkpointing",
    "engine.compile",
    "engine.checkpoint_seconds",
    "engine.tracker",
    "method.test_time.images",
)
"""Keys that don't change a run's results: folders, places of data, allowed modules, trackers, limits of hardware."""

LABEL_KEYS = ("data.class_names", "data.templates")
"""Keys of class names and templates."""

SHORTENED = 200
"""Bytes of a name that is too long for a file which its short form begins with; a hash of the whole follows."""

DIRECTORY_KEYS = ("shots", "seed", "data.name", "backbone.name", "method.name")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that identify a run, by dotted key: two runs with equal ones are the same run."""
    found = {path: value for path, value in leaves(config) if not any(inside(path, key) for key in RESULT_NEUTRAL)}
    if isinstance(found.get("data.root"), str):
        found["data.root"] = str(Path(found["data.root"]).expanduser().resolve())
    return found


def inside(path: str, key: str) -> bool:
    """Return whether a dotted path is a key or stands below it."""
    return path == key or path.startswith(f"{key}.")


def run_directory(config: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> Path:
    """Return `<output>/<data>/<backbone>/<method>/shots16-seed1`, with a hash of settings that aren't the default.

    The defaults are those of the same data, backbone and method. A hash of eight hexadecimal digits stands for all
    other settings that differ from them; a folder of images always has one, for its whole path.

    Args:
        config: the run's settings.
        usual: the defaults from `reference`; None to compose them.

    Raises:
        UserError: the path is too long.
    """
    usual = reference(config) if usual is None else usual
    differing = differing_settings(config, usual)
    digest = hashlib.sha256(json.dumps(differing, sort_keys=True).encode()).hexdigest()[:8]
    also = [name for name in config["method"]["also"] if name not in usual["method"]["also"]]
    parts = [
        data_name(config["data"], config["config_dir"]),
        config["backbone"]["name"],
        "+".join([config["method"]["name"], *also]),
    ]
    last = f"shots{config['shots']}-seed{config['seed']}" + (f"-{digest}" if differing else "")
    return checked_path(Path(config["output"], *map(file_name, parts), last), "the run directory")


def differing_settings(config: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Return by dotted key what of a run's settings differs from the defaults; what is missing in it is "absent".

    What the directories' names say of themselves is left out.

    Args:
        config: the run's settings.
        usual: the defaults from `reference`.
    """
    own, common = identity(config), identity(usual)
    keys = sorted({*own, *common} - {*DIRECTORY_KEYS})
    return {
        key: own.get(key, "absent") for key in keys if key not in own or key not in common or own[key] != common[key]
    }


def file_name(text: str) -> str:
    """Return a text as the name of a file."""
    name = re.sub(r"[^\w.+-]+", "-", text).strip(".-")
    if len(name.encode()) <= MAX_NAME:
        return name
    return f"{name.encode()[:SHORTENED].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def data_name(data: Mapping[str, Any], config_dir: str | None) -> str:
    """Return the name of the data's YAML; without a YAML, the source's class and the name of its task or folder."""
    source = data["_target_"].rpartition(".")[2]
    if "name" in data:
        name = data["name"]
        return name if has_yaml(name, data, config_dir) else f"{source}-{file_name(name)}"
    return f"{source}-{file_name(Path(data['root']).expanduser().resolve().name)}" if "root" in data else source


def has_yaml(name: Any, data: Mapping[str, Any], config_dir: str | None) -> bool:
    """Return whether conf/data has a YAML of this name for the same source as `data`."""
    path = options("data", config_dir).get(name)
    return path is not None and read_yaml(path).get("_target_") == data["_target_"]


def same_images(data: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two settings below `data` name the same images, whatever their class names and templates."""
    ours, theirs = (
        {key: value for key, value in identity({"data": one}).items() if key not in LABEL_KEYS} for one in (data, other)
    )
    return ours == theirs


def with_local_home(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings below `data`; a `data.home` that isn't on this machine becomes this machine's default."""
    data = dict(config["data"])
    if isinstance(data.get("home"), str) and not os.path.isdir(os.path.expanduser(data["home"])):
        data["home"] = reference(config)["data"].get("home", data["home"])
    return data


def reference(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default settings for a run's data, backbone and method, as far as each has a YAML file.

    If several YAML files name the same source, the one with the data's `name` is used, or else the first.
    """
    folder, data = config["config_dir"], config["data"]
    names = [data.get("name"), *options("data", folder)]
    own = next((name for name in names if has_yaml(name, data, folder)), None)
    chosen = [] if own is None else [f"data={own}"]
    for group in ("backbone", "method"):
        name = config[group]["name"]
        if name in options(group, folder):
            chosen.append(f"{group}={name}")
    return gather(chosen, folder)[0]
