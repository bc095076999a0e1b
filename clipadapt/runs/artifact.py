"""Artifacts: what a run learned as a folder for others, with nothing of the machine that it was made on."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from torch import Tensor

from clipadapt import __version__
from clipadapt.checksums import (
    check_is_file,
    damage_as_user_error,
    dump_checked_json,
    dump_checked_tensors,
    hash_file,
    read_checked_json,
)
from clipadapt.config.check import leaves, texts
from clipadapt.errors import UserError
from clipadapt.files import whole_folder, write_atomically
from clipadapt.runs import records
from clipadapt.runs.model_card import model_card
from clipadapt.runs.reading import CONFIG, TENSORS, check_new_folder

if TYPE_CHECKING:
    from clipadapt.runs.learned import LearnedModel

SETTINGS, CARD = "config.json", "README.md"
FILES = (SETTINGS, TENSORS, CARD)
FORMAT = 1
LARGEST = 2**26
"""Bytes of the settings: a run with 20,000 classes has some 6 MB."""

WHOLE = re.compile(r"\d{1,18}", re.ASCII)

RECORDED = ("task", "class_names", "templates", "shots", "seed", "classes", "fingerprint", "support_shape", "versions")
COSTS = ("parameters", "share", "seconds", "peak_memory_mb", "processes", "schedule_note")
"""Metrics that are right for other classes, too."""

MEND = "get the artifact again"


def write_artifact(learned: "LearnedModel", folder: Path) -> Path:
    """Write an artifact and return its folder; it is there as a whole, or not at all.

    Args:
        learned: what a run learned.
        folder: that isn't there yet, or is empty.

    Raises:
        UserError: the folder isn't empty, or is inside a run, or the run's settings name files of this machine.
        WriteError: the folder can't be written.
    """
    check_new_folder(folder)
    tensors = dump_checked_tensors(learned.result.tensors, {})
    content: dict[str, Any] = {
        "format": FORMAT,
        "made_by": f"clipadapt {__version__}",
        "settings": portable_settings(learned.config, learned.result.record["task"]),
        "record": portable_record(learned),
        "preprocessing": {key: _plain(value) for key, value in learned.clip.preprocess.items()},
        "metrics": portable_metrics(learned),
        "tensors": hashlib.sha256(tensors).hexdigest(),
    }
    check_portable(content["settings"])
    card = model_card(content["settings"], content["record"], content["metrics"], learned.clip.hub_id)
    as_read = json.loads(json.dumps(content))  # whole numbers as keys are texts in JSON
    files: dict[str, bytes | str] = {TENSORS: tensors, SETTINGS: dump_checked_json(as_read), CARD: card}
    with whole_folder(folder) as part:
        for name, held in files.items():
            write_atomically(part / name, held)
    return folder


def portable_settings(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return a run's settings without places: of data, of caches, of its output, of the backbone's weights."""
    own = {"output": "outputs", "rerun": False, "from": None, "allowed_targets": [], "config_dir": None}
    backbone, file = config["backbone"], weights_file(config)
    return {
        **config,
        **own,
        "data": {"name": task},
        "engine": {**config["engine"], "cache": None, "tracker": None},
        "backbone": backbone if file is None else {**backbone, "pretrained": file},
    }


def weights_file(config: Mapping[str, Any]) -> str | None:
    """Return the name of the file that the backbone's weights are from; None if they have a tag, or are random."""
    weights = config["backbone"].get("pretrained")
    return Path(weights).name if isinstance(weights, str) and os.path.exists(os.path.expanduser(weights)) else None


def portable_record(learned: "LearnedModel") -> dict[str, Any]:
    """Return of a run's record what others need: no paths, no indices of images."""
    record = {key: learned.result.record[key] for key in RECORDED if key in learned.result.record}
    backbone, file = learned.result.record["backbone"], weights_file(learned.config)
    return {
        **record,
        "words": learned.result.record.get("words", {}),
        "backbone": backbone if file is None else {**backbone, "pretrained": file},
        "weights_file": file or learned.result.record.get("weights_file"),
        "for_classes": learned.class_names or learned.result.record.get("for_classes"),
    }


def portable_metrics(learned: "LearnedModel") -> dict[str, Any]:
    """Return a run's metrics, without figures where other classes than the run's were asked for."""
    metrics = dict(learned.result.metrics)
    if learned.class_names is None:
        return metrics
    return {"tests": {}, **{key: metrics[key] for key in COSTS}}


def check_portable(settings: Mapping[str, Any]) -> None:
    """Check that settings name no file of this machine.

    Raises:
        UserError: they do.
    """
    for path, value in leaves(settings):
        for text in texts(value):
            if (":" in text or os.path.isabs(text)) and os.path.exists(text.rpartition(":")[2]):
                raise UserError(
                    f"{path}={text} names a file of this machine, which nobody else has: put what it holds into the "
                    "settings and compute the run again"
                )


def is_artifact(folder: str | Path) -> bool:
    """Return whether a folder is an artifact, and no run directory."""
    place = Path(folder)
    try:
        return (place / SETTINGS).is_file() and not (place / CONFIG).exists()
    except OSError:  # the reader of runs says why
        return False


def settings_file(folder: Path) -> Path:
    """Return the file with the settings of a run or an artifact."""
    return folder / (SETTINGS if is_artifact(folder) else CONFIG)


class ArtifactReader:
    """Reads the files of an artifact, as `RunReader` those of a run.

    Args:
        path: the artifact's folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._content: dict[str, Any] = {}

    def check_files(self) -> None:
        """Check the files of the artifact, and read its settings.

        Raises:
            UserError: a file is damaged or missing, or of a newer format.
        """
        with damage_as_user_error(self.path / SETTINGS, MEND):
            check_is_file(self.path / SETTINGS)
            if (self.path / SETTINGS).stat().st_size > LARGEST:
                raise ValueError(f"it is larger than {LARGEST:,} bytes")
            self._content = check_content(read_checked_json(self.path / SETTINGS), self.path)
        with damage_as_user_error(self.path / TENSORS, MEND):
            if hash_file(self.path / TENSORS) != self._content["tensors"]:
                raise ValueError(f"its checksum is another than in {SETTINGS}")

    def config(self) -> dict[str, Any]:
        """Return the run's settings as they are written: plain values, of which nothing is known yet."""
        found: dict[str, Any] = with_whole_keys(self._content["settings"])
        return found

    def record(self) -> dict[str, Any]:
        """Return the run's task, backbone and versions.

        Raises:
            UserError: something is missing.
        """
        with damage_as_user_error(self.path / SETTINGS, MEND):
            return records.check_record(self._content["record"])

    def result(self) -> dict[str, Any]:
        """Return the run's metrics.

        Raises:
            UserError: something is missing.
        """
        with damage_as_user_error(self.path / SETTINGS, MEND):
            return records.check_result(self._content["metrics"])

    def history(self) -> list[dict[str, float]]:
        """Return no epochs: an artifact doesn't hold them."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """Return the learned tensors by name.

        Raises:
            UserError: the file can't be read.
        """
        with damage_as_user_error(self.path / TENSORS, MEND):
            return load_file(self.path / TENSORS)


def check_content(content: Any, folder: Path) -> dict[str, Any]:
    """Return what an artifact's settings file holds, after a check of its format and of its parts.

    Raises:
        UserError: it is of a newer format.
        ValueError: it is of no format, or a part is missing.
    """
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise ValueError("it has no format")
    if content["format"] > FORMAT:
        version = re.fullmatch(r"clipadapt (\d[\w.]{0,30})", str(content.get("made_by")))
        newer = f'"clipadapt>={version[1]}"' if version else "a newer clipadapt"
        raise UserError(f"{folder} is an artifact of format {content['format']}: install {newer} to read it")
    parts = {"settings": dict, "record": dict, "metrics": dict, "tensors": str}
    for name, kind in parts.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"it has no {name}")
    return content


def with_whole_keys(value: Any) -> Any:
    """Return a value of JSON with whole numbers as keys where they are texts of digits, as YAML has them."""
    if isinstance(value, list):
        return [with_whole_keys(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {int(key) if WHOLE.fullmatch(key) else key: with_whole_keys(inner) for key, inner in value.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
