"""A CLIP with one block in each tower, which open_clip knows by name: graphs of it are made in seconds."""

import json
from functools import cache
from pathlib import Path

import open_clip
import torch

from clipadapt.backbone.open_clip import CLIP

NAME = "one-block"
WIDTH = 64
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": WIDTH, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 1, "layers": 1},
}


def register(folder: Path) -> None:
    """Let open_clip know the model."""
    file = folder / f"{NAME}.json"
    file.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(file)


@cache
def one_block() -> CLIP:
    """The model with random weights that are larger than at the start of a pretraining, so that answers differ."""
    clip = CLIP.load(NAME, None)
    with torch.no_grad():
        for weight in clip.model.visual.parameters():
            weight.mul_(2)
        clip.model.logit_scale.fill_(3.0)
    return CLIP(clip.model, open_clip.SimpleTokenizer(), clip.source)
