"""The embedded backbone: a small CLIP pretrained on the drawn world. Its card is README.md beside this file."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent
EMBEDDING = "token_embedding"


@cache
def card() -> dict[str, Any]:
    """Architecture, data, recipe and figures."""
    return json.loads((HERE / "card.json").read_text())


def config() -> dict[str, Any]:
    """The architecture, as an open_clip model config."""
    return card()["model"]


def known_tokens() -> frozenset[int]:
    """Ids of the tokens that pretraining saw."""
    return frozenset(load_file(HERE / "model.safetensors")[f"{EMBEDDING}.ids"].tolist())


def weights() -> dict[str, Tensor]:
    """All weights in float32; the embeddings of tokens that pretraining never saw are drawn from the card's seed."""
    state = {name: value.float() for name, value in load_file(HERE / "model.safetensors").items()}
    ids, seen = state.pop(f"{EMBEDDING}.ids").long(), state.pop(f"{EMBEDDING}.seen")
    recipe, text = card()["recipe"], config()["text_cfg"]
    random = np.random.RandomState(recipe["embedding_seed"])
    drawn = random.standard_normal((text["vocab_size"], text["width"])) * recipe["embedding_deviation"]
    embeddings = torch.from_numpy(drawn.astype(np.float32))
    embeddings[ids] = seen
    return {**state, f"{EMBEDDING}.weight": embeddings}
