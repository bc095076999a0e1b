"""A third tower, as a language model would be: asked for by name, edited, replaced and cut like the other two."""

import open_clip
import pytest
import torch
from torch import nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.finetune import FullFinetuning
from clipadapt.adaptations.peft import Peft
from clipadapt.backbone.attention import Block, run_block
from clipadapt.backbone.open_clip import CLIP
from clipadapt.backbone.towers import BlockStage, Tower
from clipadapt.errors import MissingPoint, UserError
from tests.small import TASK, close, golden

WIDTH = 16
IDS = torch.arange(6).reshape(2, 3)


class Language(nn.Module):
    """Two blocks over embedded ids."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, 10)
        self.layers = nn.ModuleList(block() for _ in range(2))


def block() -> Block:
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    return Block(nn.LayerNorm(WIDTH), attention, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))


class Captioner(CLIP):
    """open_clip's two towers and a language model."""

    def build_towers(self, model):
        own = model.language
        stages = {"ids": own.words, **{f"block.{i}": BlockStage(x, run_block) for i, x in enumerate(own.layers)}}
        weights = {"ids": (own.words,), "tokens": (own.out,)}
        return super().build_towers(model) | {"language": Tower("language", stages | {"tokens": own.out}, weights)}


class Shift(Adaptation):
    """A learned shift before the second block of the language model."""

    def __init__(self, clip, task, point="block.1"):
        super().__init__(clip, task)
        self.point, self.shift = point, nn.Parameter(torch.ones(WIDTH))

    def edits(self, tower, image=None):
        return {self.point: lambda x: x + self.shift} if tower == "language" else {}


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(0)
    model = CLIP.load("tiny", None).model
    model.language = Language()
    built = Captioner(model, open_clip.SimpleTokenizer(), {"name": "captioner"})
    built.widths["language"] = WIDTH
    return built


def test_it_is_asked_for_by_name(clip):
    assert [*clip.towers] == ["image", "text", "language"]
    assert clip.tower("language").points == ("ids", "block.0", "block.1", "tokens", "features")
    with pytest.raises(UserError, match=r"'golden' has no language tower: take one of image, text$"):
        golden().tower("language")


def test_it_gets_edits_and_a_cut(clip):
    tower, shift = clip.tower("language"), Shift(clip, TASK)
    assert [shift.cut(name, clip.tower(name)) for name in clip.towers] == ["features", "features", "block.1"]
    here = tower.run(IDS, stop="block.1")
    edited = tower.run(here, shift.edits("language"), start="block.1")
    assert torch.equal(edited, tower.run(IDS, shift.edits("language")))
    assert torch.equal(edited, tower.run(here + 1, start="block.1"))
    assert not torch.allclose(edited, tower.run(IDS))
    edited.sum().backward()
    assert shift.shift.grad.any() and all(weight.grad is None for weight in clip.model.parameters())
    with pytest.raises(MissingPoint, match=r"language tower has no point 'words'"):
        Shift(clip, TASK, "words").cut("language", tower)


def test_its_weights_can_be_trained(clip):
    tower, built = clip.tower("language"), FullFinetuning(clip, TASK, "language")
    assert built.cut("language", tower) == "ids" and built.cut("image", clip.image) == "features"
    expected = {name for name, _ in clip.model.named_parameters() if name.startswith("language")}
    assert {name.replace("/", ".") for name, _ in built.named_parameters()} == expected
    assert torch.equal(tower.run(IDS, stages=built.stages("language")), tower.run(IDS))


def test_its_blocks_take_modules(clip):
    tower, built = clip.tower("language"), Peft(clip, TASK, "language")
    assert built.cut("language", tower) == "block.0"
    close(tower.run(IDS, stages=built.stages("language")), tower.run(IDS))
    for weight in built.parameters():
        weight.data += 0.1
    assert not torch.allclose(tower.run(IDS, stages=built.stages("language")), tower.run(IDS))
