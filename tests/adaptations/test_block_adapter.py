"""A bottleneck adapter in image blocks: a method of thirty lines on the base class of what is put into blocks."""

import inspect

import pytest
import torch
from torch import nn

from clipadapt.adaptations.blocks import BlockReplacement
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, close, golden, images


class Bottleneck(nn.Module):
    """A residual two-layer MLP, which starts as the identity."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, inner), nn.Linear(inner, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        return x + self.up(nn.functional.relu(self.down(x)))


class BlockAdapter(BlockReplacement):
    """Adapters after the MLPs of the image tower's blocks (Houlsby et al., ICML 2019, arXiv:1902.00751, section 2.1).

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        inner: channels inside of an adapter.
    """

    def __init__(self, clip, task, inner: int = 4):
        self.sizes = clip.image_width, inner
        super().__init__(clip, task, "image")

    def change(self, name, block):
        block.mlp = nn.Sequential(block.mlp, Bottleneck(*self.sizes))


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(golden(), BlockAdapter(golden(), TASK), CLASS_NAMES)


def test_it_takes_few_lines():
    assert sum(len(inspect.getsource(part).splitlines()) for part in (Bottleneck, BlockAdapter)) < 35


def test_it_starts_as_the_frozen_tower_and_learns(classifier):
    pixels = images(4)
    assert classifier.image_cut == "block.0" and classifier.text_cut == "features"
    close(classifier.encode_image(pixels), golden().image.run(pixels))
    frozen = {name: weight.clone() for name, weight in golden().model.state_dict().items()}
    optimizer = torch.optim.SGD(classifier.adaptation.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = nn.functional.cross_entropy(classifier(pixels), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(torch.equal(weight, frozen[name]) for name, weight in golden().model.state_dict().items())


def test_what_is_learned_is_the_adapters_alone(classifier):
    adaptation = classifier.adaptation
    names = [name for name, _ in adaptation.named_parameters()]
    assert len(names) == 4 * 4 and names[0] == "image/block/0/mlp/1/down/weight"
    assert [*adaptation.state_dict()] == names
    pixels = images(2)
    for weight in adaptation.parameters():
        weight.data += 0.1
    again = BlockAdapter(golden(), TASK)
    again.load_state_dict(adaptation.state_dict())
    other = Classifier(golden(), again, CLASS_NAMES)
    assert torch.equal(other(pixels), classifier(pixels))
    with pytest.raises(UserError, match="BlockAdapter has no start to go back to"):
        again.interpolate(0.5)


def test_it_must_run_in_the_blocks():
    class Wide(BlockAdapter):
        def change(self, name, block):
            block.mlp = nn.Sequential(block.mlp, Bottleneck(self.sizes[0] + 1, 2))

    with pytest.raises(UserError, match="this doesn't run in the blocks of the image tower"):
        Wide(golden(), TASK)
