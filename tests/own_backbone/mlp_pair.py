"""A family of backbones of a user's own: an MLP on pixels and one on characters, with random weights."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.text import PromptLayout
from clipadapt.backbone.text_tower import opaque_text_tower
from clipadapt.backbone.tokenizer import Tokenizer
from clipadapt.backbone.towers import Tower, opaque_image_tower

SIDE, LENGTH, CHARACTERS = 16, 64, 128
MEAN = STD = (0.5, 0.5, 0.5)


class Model(nn.Module):
    """The weights of both towers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, width), nn.GELU(), nn.Linear(width, width))
        self.characters = nn.Embedding(CHARACTERS, width)
        self.text = nn.Sequential(nn.GELU(), nn.Linear(width, width))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Character codes `[N, length]` to features `[N, D]`."""
        return self.text(self.characters(ids).mean(dim=1))


class MLPPair(DualEncoder):
    """Two MLPs.

    Args:
        name: of the backbone.
        width: channels of the joint space.
        seed: draws the weights.
    """

    def __init__(self, name: str, width: int = 32, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Model(width)
        super().__init__(
            model,
            {"name": name, "width": width, "seed": seed},
            scale=20.0,
            preprocess={"size": SIDE, "mean": MEAN, "std": STD, "interpolation": "bicubic"},
            transform=transform,
            tokenizer=Tokenizer(LENGTH, encode, decode, start=[2], end=[3]),
            layout=PromptLayout(LENGTH, packs=False),
            width=width,
        )

    def build_towers(self, model: Any) -> dict[str, Tower]:
        """Return both towers, of which the ends alone are known."""
        return {
            "image": opaque_image_tower(model.image, model.image),
            "text": opaque_text_tower(model.encode_text, model.text),
        }


def transform(image: Image.Image) -> Tensor:
    """Return the pixels `[3, height, width]` of an image, resized."""
    return functional.normalize(functional.to_tensor(image.convert("RGB").resize((SIDE, SIDE))), MEAN, STD)


def encode(text: str) -> list[int]:
    """Return a text's character codes."""
    return [ord(character) % CHARACTERS for character in text]


def decode(ids: list[int]) -> str:
    """Return the text of character codes."""
    return "".join(map(chr, ids))
