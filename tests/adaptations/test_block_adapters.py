"""VL-Adapter's and Compacter's adapters in blocks: what golden records and contracts don't show."""

from functools import partial

import pytest
import torch
from torch import nn

from clipadapt.adaptations.block_adapters import AdapterFamily
from clipadapt.backbone.attention import run_block
from clipadapt.errors import UserError
from tests.small import adaptation, close, golden, images

NODE = "method.adaptation."
PLAIN = {"reduction": 4, "share_down": False, "share_up": False, "norm_before": False, "norm_after": False}
PLAIN |= {"division": None, "factorized": False, "rank": 1, "shared_rule": False}


def numbers(*overrides):
    return sum(value.numel() for value in adaptation("block_adapters", *overrides).parameters())


def test_adapters_change_the_outputs_of_attention_and_mlp_before_their_residuals():
    block = adaptation("block_adapters").stages("image")["block.1"]
    frozen, x = golden().image.blocks["block.1"], images(1).flatten()[: 17 * 128].view(1, 17, 128)
    (_, first), (_, second) = block.ls_1, block.ls_2
    attended = frozen.attn(frozen.ln_1(x), frozen.ln_1(x), frozen.ln_1(x))[0]
    middle = x + first(attended)
    close(run_block(block, x), middle + second(frozen.mlp(frozen.ln_2(middle))))


def test_what_is_shared_is_learned_once():
    each, down = 128 * 16 + 16, 16 * 128 + 128
    alone = numbers(f"{NODE}block_norms=false")
    assert alone == 16 * (each + down)  # two adapters in each of four blocks of two towers
    assert numbers(f"{NODE}block_norms=false", f"{NODE}share_down=true") == each + 16 * down
    assert numbers(f"{NODE}block_norms=false", f"{NODE}share_down=true", f"{NODE}share_up=true") == each + down
    assert numbers(f"{NODE}block_norms=false", f"{NODE}norm_after=true") == alone + 2 * 128
    assert numbers() == alone + 8 * 2 * 2 * 128


def test_norms_of_the_input_and_of_the_update():
    adapter = AdapterFamily(**PLAIN | {"norm_before": True, "norm_after": True}).adapter(32)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 32)
    before, after = (
        partial(nn.functional.layer_norm, normalized_shape=(32,), **dict(n.named_parameters()))
        for n in (adapter.before, adapter.after)
    )
    down, up = adapter.down, adapter.up
    hidden = nn.functional.gelu(before(x) @ down.weight.T + down.bias, approximate="tanh")
    close(adapter(x), x + after(hidden @ up.weight.T + up.bias))


def test_adapters_of_other_widths_share_nothing_but_the_rule():
    family = AdapterFamily(**PLAIN | {"share_down": True, "share_up": True, "division": 2, "shared_rule": True})
    wide, narrow, again = (family.adapter(width) for width in (64, 32, 64))
    assert wide.down is again.down and wide.up is again.up and wide.down is not narrow.down
    assert wide.down.rule is narrow.up.rule is wide.up.rule


@pytest.mark.parametrize("factorized", [False, True])
def test_a_hypercomplex_layer_is_a_sum_of_kronecker_products(factorized):
    layer = AdapterFamily(**PLAIN | {"division": 2, "factorized": factorized, "rank": 3}).adapter(32).down
    nn.init.normal_(layer.rule)
    second = layer.left @ layer.right if factorized else layer.weight
    expected = sum(torch.kron(rule, weight) for rule, weight in zip(layer.rule, second, strict=True))
    assert expected.shape == (32, 8)
    close(layer(torch.eye(32)), expected)


def test_sizes_that_do_not_go():
    with pytest.raises(UserError, match="reduction 129 leaves no channel of 128: choose at most 128"):
        adaptation("block_adapters", f"{NODE}reduction=129")
    with pytest.raises(UserError, match="division 3 doesn't divide 128 and 16 channels: choose another one"):
        adaptation("block_adapters", f"{NODE}division=3")
