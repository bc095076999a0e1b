"""What clipadapt uses of other packages though they don't document it: a new version may take it away.

A test that fails here says which code to change; the package's version is the reason.
"""

import inspect

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from open_clip.transformer import TextTransformer, VisionTransformer

from clipadapt.engine.accelerator import forget_accelerator


def test_accelerate_can_forget_its_state():
    assert hasattr(AcceleratorState, "_reset_state"), (
        "accelerate has no AcceleratorState._reset_state any more: find another way in clipadapt.engine.accelerator, "
        "forget_accelerator"
    )
    forget_accelerator()  # of a test before
    Accelerator(cpu=True, mixed_precision="bf16")
    forget_accelerator()
    assert not AcceleratorState._shared_state and not PartialState._shared_state, (
        "accelerate's _reset_state(reset_partial_state=True) leaves some of its state: a second run in one process "
        "would get the device and number format of the first"
    )
    assert Accelerator(cpu=True, mixed_precision="no").mixed_precision == "no"
    forget_accelerator()


def test_open_clip_pools_image_tokens():
    assert hasattr(VisionTransformer, "_pool"), (
        "open_clip has no VisionTransformer._pool any more: clipadapt.backbone can't read features from image tokens"
    )
    visual = VisionTransformer(32, 8, width=16, layers=1, heads=2, mlp_ratio=2.0, output_dim=8)
    with torch.no_grad():
        tokens = torch.randn(2, 17, 16)
        pooled, rest = visual._pool(tokens)
        expected = visual.ln_post(tokens)[:, 0]
    assert torch.allclose(pooled, expected, atol=1e-6) and rest.shape == (2, 16, 16), (
        "open_clip's VisionTransformer._pool no longer returns the normalised class token, and the other tokens"
    )


def test_open_clip_masks_the_padding_of_texts():
    assert hasattr(TextTransformer, "_build_additive_mask"), (
        "open_clip has no TextTransformer._build_additive_mask any more: clipadapt.backbone can't mask padded texts"
    )
    names = [*inspect.signature(TextTransformer._build_additive_mask).parameters]
    assert len(names) == 4, (
        f"open_clip's _build_additive_mask takes other arguments than text, length and dtype: {names}"
    )
    text = TextTransformer(context_length=6, vocab_size=10, width=8, heads=2, layers=1, use_pad_mask=True, pad_id=0)
    mask = text._build_additive_mask(torch.tensor([[5, 6, 0, 0, 0, 0], [1, 2, 3, 0, 0, 0]]), 6, torch.float32)
    seen = mask.unflatten(0, (2, -1))[:, 0] == 0
    assert seen.shape == (2, 6, 6) and seen[:, -1].sum(dim=-1).tolist() == [2, 3], (
        "open_clip's _build_additive_mask no longer returns one mask for each text and head, 0 where a token is seen"
    )
