"""The embedded backbone: a small CLIP, pretrained on synthetic drawings. Its card is README.md beside this file."""

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
    """Return the model card: architecture, data, training recipe and figures."""
    return json.loads((HERE / "card.json").read_text())


def config() -> dict[str, Any]:
    """Return the architecture, as an open_clip model config."""
    return card()["model"]


def known_tokens() -> frozenset[int]:
    """Return the ids of the tokens that occur in the pretraining data."""
    return frozenset(load_file(HERE / "model.safetensors")[f"{EMBEDDING}.ids"].tolist())


def weights() -> dict[str, Tensor]:
    """Return all weights in float32; embeddings of tokens outside the pretraining data are drawn by the card's seed."""
    state = {name: value.float() for name, value in load_file(HERE / "model.safetensors").items()}
    ids, trained = state.pop(f"{EMBEDDING}.ids").long(), state.pop(f"{EMBEDDING}.seen")
    recipe, text = card()["recipe"], config()["text_cfg"]
    random = np.random.RandomState(recipe["embedding_seed"])
    drawn = random.standard_normal((text["vocab_size"], text["width"])) * recipe["embedding_deviation"]
    embeddings = torch.from_numpy(drawn.astype(np.float32))
    embeddings[ids] = trained
    return {**state, f"{EMBEDDING}.weight": embeddings}
