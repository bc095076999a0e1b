"""Attention rollout of an image tower (Abnar & Zuidema, ACL 2020, arXiv:2005.00928, section 3)."""

import torch
from torch import Tensor

from clipadapt.backbone.attention import attention_weights
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.towers import BlockStage
from clipadapt.errors import UserError
from clipadapt.model import AdaptedCLIP

FIRST = "block.0"


@torch.no_grad()
def attention_rollout(model: AdaptedCLIP, pixels: Tensor) -> Tensor:
    """Return how much each patch of images `[B, 3, height, width]` enters their features, `[B, rows, columns]`.

    In each block, tokens are mixed by half of the attention, averaged over heads, and half of the identity, for the
    residual connection; the mixtures of all blocks are multiplied. The adaptation's edits and blocks are in place.
    Tokens that an edit has learned hold nothing of the image: what attends to them is of no patch, so that the sum over
    patches is the share of the image.

    Args:
        model: an adapted CLIP.
        pixels: preprocessed images, on the model's device.

    Raises:
        UserError: the image tower is no vision transformer, or the adaptation replaces its blocks by other modules.
    """
    tower, edits, own = model.clip.image, model.adaptation.edits("image"), model.adaptation.stages("image")
    rows, columns = patch_grid(model.clip)
    x = torch.cat([pixels, _noise(pixels)])
    x = tower.run(x, edits, own, stop=FIRST)
    mixture = _start(x, rows * columns, has_class_token(model.clip))
    for point in tower.blocks:
        if point in edits:
            x = edits[point](x)
            mixture = _without_learned(mixture, x)
        stage = tower.make_stage(point, own[point]) if point in own else tower.stages[point]
        if not isinstance(stage, BlockStage):
            raise UserError(f"this adaptation has a module of its own at {point}, whose attention isn't known")
        weights = attention_weights(stage.block.attn, stage.block.ln_1(x)).mean(dim=-3).float()
        x = stage(x)
        mixture = (weights @ mixture + mixture) / 2
    read = mixture[..., 0, :] if x.shape[-2] == 1 else mixture.mean(dim=-2)
    over_prompts = read.reshape(-1, *read.shape[-2:]).mean(dim=0)  # each of several visual prompts reads the image
    return over_prompts[: len(pixels)].unflatten(-1, (rows, columns))


def patch_grid(clip: DualEncoder) -> tuple[int, int]:
    """Return the rows and columns of patches that an image tower makes of an image.

    Raises:
        UserError: the tower is no vision transformer, or has another number of tokens than patches and a class token.
    """
    name, tower, (height, width) = clip.source["name"], clip.image, clip.image_size
    if FIRST not in tower.blocks:
        raise UserError(
            f"where the model looks is shown for vision transformers, and the image tower of {name} is none of them "
            f"(its points are {', '.join(tower.points)})"
        )
    count = _count_tokens(clip)
    for tokens in (count - 1, count):
        for size in range(1, min(height, width) + 1):
            if (height // size) * (width // size) == tokens:
                return height // size, width // size
    raise UserError(f"the {count} tokens of the image tower of {name} are no grid of patches")


def has_class_token(clip: DualEncoder) -> bool:
    """Return whether the tokens of the image tower begin with a class token."""
    rows, columns = patch_grid(clip)
    return _count_tokens(clip) > rows * columns


def _count_tokens(clip: DualEncoder) -> int:
    blank = torch.zeros(1, 3, *clip.image_size, device=clip.device, dtype=clip.dtype)
    tokens: Tensor = clip.image.run(blank, stop="patches")
    return tokens.shape[-2]


def _noise(pixels: Tensor) -> Tensor:
    """Return one random image `[1, 3, height, width]`: tokens that are the same for it and the others are learned."""
    drawn = torch.randn(pixels[:1].shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(pixels)


def _start(x: Tensor, patches: int, class_token: bool) -> Tensor:
    """Return how much of each patch is in each token before the first block, `[..., T, P]`: each patch in its own."""
    start = x.new_zeros(*x.shape[:-1], patches, dtype=torch.float32)
    places = torch.arange(patches, device=x.device)
    start[..., places + class_token, places] = 1.0
    return start


def _without_learned(mixture: Tensor, x: Tensor) -> Tensor:
    """Return a mixture `[..., B, T, P]` for tokens `x [..., B, T', W]` after an edit: learned ones hold no patch."""
    more = x.shape[-2] - mixture.shape[-2]
    if more > 0:
        mixture = torch.cat([mixture, mixture.new_zeros(*mixture.shape[:-2], more, mixture.shape[-1])], dim=-2)
    learned = (x == x[..., -1:, :, :]).all(dim=-1).all(dim=-2)
    return mixture.masked_fill(learned[..., None, :, None], 0.0)
