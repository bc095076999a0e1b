"""Backbones that estimators share: the folds of a cross-validation load the same one once."""

import json
from functools import lru_cache
from typing import Any

import torch

from clipadapt.api import backbone_settings
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.runs.methods import build_backbone, usual_device


@lru_cache(maxsize=16)
def compose_backbone(name: str, pretrained: str | None, config_dir: str | None) -> dict[str, Any]:
    """Return the settings of a backbone; nobody may change them. Arguments and errors as of `load_backbone`."""
    settings: dict[str, Any] = backbone_settings(name, pretrained, None, config_dir)
    return settings


def shared_backbone(config: dict[str, Any], cpu: bool) -> DualEncoder:
    """Return the backbone of a run's settings in float32 on its device; the last one that was asked for stays loaded.

    Raises:
        WeightsError: unknown or unusable weights.
    """
    needed = json.dumps([config["backbone"], config["allowed_targets"]], sort_keys=True)
    device = usual_device(cpu)
    clip = _load(needed, device)
    if clip.dtype != torch.float32:  # a run with another number format has rounded it
        _load.cache_clear()
        clip = _load(needed, device)
    return clip


@lru_cache(maxsize=1)
def _load(needed: str, device: str) -> DualEncoder:
    backbone, allowed = json.loads(needed)
    return build_backbone({"backbone": backbone, "allowed_targets": allowed}).to(device)
