"""Adapters beside the blocks of both towers: what golden records and contracts don't show."""

from types import SimpleNamespace

import pytest
import torch

from clipadapt.adaptations.blocks import BlockReplacement
from clipadapt.adaptations.shared_adapters import SharedAdapters
from clipadapt.errors import UserError
from tests.small import adaptation, images

NODE = "method.adaptation."


@pytest.mark.parametrize(("count", "expected"), [(12, range(4, 12)), (24, range(8, 24)), (1, range(1))])
def test_a_third_of_the_blocks_is_left_out(monkeypatch, count, expected):
    monkeypatch.setattr(BlockReplacement, "__init__", lambda *given: None)
    towers = {"image": SimpleNamespace(blocks=range(count + 12)), "text": SimpleNamespace(blocks=range(count))}
    built = SharedAdapters(SimpleNamespace(tower=towers.get, widths={}), SimpleNamespace())
    assert [*built.shared] == [*expected]


def test_blocks_that_there_are_not():
    for given in ([f"{NODE}first=5"], [f"{NODE}last=5"], [f"{NODE}first=3", f"{NODE}last=2"]):
        with pytest.raises(UserError, match="in both towers, which have 4 in common"):
            adaptation("shared_adapters", *given)


def test_both_towers_share_the_layer_inside_which_is_learned_once():
    built = adaptation("shared_adapters", f"{NODE}first=4")
    image, text = (built.stages(tower)["block.3"].beside for tower in ("image", "text"))
    assert image.shared is text.shared and image.down is not text.down
    assert sum("shared" in name for name, _ in built.named_parameters()) == 2
    assert image.down.weight.std().item() == pytest.approx((2 / 32) ** 0.5, rel=0.05) and not image.up.bias.any()


def test_gradients_of_layers_are_without_the_scale_and_those_of_the_input_with_it():
    adapter = adaptation("shared_adapters", f"{NODE}scale=0.01").stages("image")["block.2"].beside
    x = images(1).view(-1, 128)[:3].requires_grad_()
    adapter(x).square().sum().backward()
    found = [x.grad.clone(), adapter.down.weight.grad.clone(), adapter.up.bias.grad.clone()]
    plain = 0.01 * adapter.up(adapter.shared(adapter.down(x).relu()).relu())
    wanted = torch.autograd.grad(plain.square().sum(), [x, adapter.down.weight, adapter.up.bias])
    for one, expected, factor in zip(found, wanted, (1, 100, 100), strict=True):
        torch.testing.assert_close(one, factor * expected)
