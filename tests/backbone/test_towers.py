"""Towers: what open_clip's own forward computes, from point to point."""

from dataclasses import replace

import open_clip
import pytest
import torch
from torch import Tensor

from clipadapt.backbone import open_clip as family
from clipadapt.backbone import towers
from clipadapt.backbone.attention import split_block
from clipadapt.backbone.open_clip import CLIP
from clipadapt.backbone.prompts import in_chunks
from clipadapt.backbone.rows import Rows, Slot
from clipadapt.errors import UserError
from tests.small import close, golden, images

TEXTS = ["a photo of a cat.", "a photo of a golden retriever in the snow.", "tree"]
VISION = ["pixels", "patches", "block.0"]
POINTS = {
    "golden": (VISION, ["ids", "words", "block.0"]),
    "ViT-B-16": (VISION, ["ids", "words", "block.0"]),
    "RN50": (["pixels", "layer.1", "layer.2"], ["ids", "words", "block.0"]),
    "ViT-B-16-SigLIP": (["pixels", "features"], ["ids", "words", "block.0"]),
    "coca_ViT-B-32": (VISION, ["ids", "words", "block.0"]),
    "EVA02-B-16": (["pixels", "features"], ["ids", "words", "block.0"]),
}
TEXT_TOWERS = {
    "linear projection": {"proj_bias": True, "pool_type": "argmax"},
    "no projection": {"proj_type": "none", "pool_type": "argmax"},
    "last token": {"no_causal_mask": True, "pool_type": "last"},
    "first token": {"no_causal_mask": True, "pool_type": "first"},
    "not causal": {"no_causal_mask": True, "pool_type": "argmax"},
    "class token": {"embed_cls": True, "context_length": 20},
    "end token by id": {"pool_type": "eos", "eos_id": 49407},
    "padding mask": {"no_causal_mask": True, "pool_type": "argmax"},
}


LARGE = ("ViT-B-16", "coca_ViT-B-32")
"""Built as others of the default run are; `-m slow` has them."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in POINTS]
)
def clip(request) -> CLIP:
    return golden() if request.param == "golden" else CLIP.load(request.param, None)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pixels_for(clip: CLIP) -> Tensor:
    return images(2, clip.image_size[0])


def text_for(clip: CLIP) -> tuple[Rows, Tensor]:
    """Prompts as rows, and as the token ids that open_clip's own tokenizer makes of them."""
    name = clip.source["name"]
    if name == "ViT-B-16-SigLIP":  # its tokenizer is on the network
        ids = torch.randint(2, 1000, (3, 64), generator=torch.Generator().manual_seed(0))
        return clip.arrange(ids.tolist(), (3, 1)), ids
    return clip.tokenize([[text] for text in TEXTS]), open_clip.get_tokenizer("RN50" if name == "golden" else name)(
        TEXTS
    )


def values(x: Tensor | Rows) -> Tensor:
    return x.values if isinstance(x, Rows) else x


def flip(x: Tensor | Rows) -> Tensor | Rows:
    return replace(x, values=x.values.flip(-1)) if isinstance(x, Rows) else x.flip(-1)


def step_by_step(tower: towers.Tower, x: Tensor | Rows) -> Tensor:
    for start, stop in zip(tower.points, tower.points[1:], strict=False):
        x = tower.run(x, start=start, stop=stop)
    return x


def test_image_tower(clip):
    pixels = pixels_for(clip)
    expected = clip.model.encode_image(pixels, normalize=False)
    found = clip.image.run(pixels)
    close(found, expected)
    assert torch.equal(step_by_step(clip.image, pixels), found)
    close(step_by_step(clip.image, pixels[:, None]), expected[:, None])


def test_text_tower(clip):
    rows, ids = text_for(clip)
    found = clip.text.run(rows)
    close(found, clip.model.encode_text(ids, normalize=False)[:, None])
    assert torch.equal(step_by_step(clip.text, rows), found)


def test_chunks_of_any_text_tower(clip):
    def arrange(sequences, shape, first_class):
        return clip.arrange(sequences, shape, first_class=first_class)

    siglip = clip.source["name"] == "ViT-B-16-SigLIP"  # its tokenizer is on the network
    sequences = text_for(clip)[1].tolist() if siglip else [clip.tokenizer.sequence(text) for text in TEXTS]
    chunks = in_chunks(sequences, (3, 1), 1, arrange, clip._layout.count_rows)
    assert [len(part) for part in chunks.chunks] == [3] and chunks.activation_checkpointing
    close(chunks.run(clip.text), clip.text.run(arrange(sequences, (3, 1), 0)))


def test_points(clip):
    image, text = POINTS[clip.source["name"]]
    for tower, first in ((clip.image, image), (clip.text, text)):
        assert [*tower.points[: len(first)]] == first
        assert tower.points[-1] == "features"
        opaque = len(tower.points) == 2
        assert opaque or tower.points[-2] == "tokens"


@pytest.mark.parametrize("name", ["image", "text"])
def test_every_point(name):
    tower = getattr(golden(), name)
    x = images(4) if name == "image" else text_for(golden())[0]
    through = tower.run(x)
    for point in tower.points:
        here = tower.run(x, stop=point)
        assert torch.equal(tower.run(here, start=point), through)
        edited = tower.run(x, {point: flip})
        assert torch.equal(edited, tower.run(flip(here), start=point))
        assert not torch.allclose(edited, through)
        assert torch.equal(values(tower.run(x, {point: flip}, stop=point)), values(here))


def test_leading_dimensions_at_every_point():
    clip, pixels = golden(), images(4)
    rows = text_for(clip)[0]
    through = clip.image.run(pixels)
    for point in clip.image.points:
        here = clip.image.run(pixels, stop=point).unflatten(0, (2, 2))
        close(clip.image.run(here, start=point), through.unflatten(0, (2, 2)))
    for point in clip.text.points[1:-1]:
        here = clip.text.run(rows, stop=point)
        both = replace(here, values=torch.stack([here.values, here.values.flip(-1)])[:, None])
        expected = torch.stack([clip.text.run(x, start=point) for x in (here, flip(here))])[:, None]
        close(clip.text.run(both, start=point), expected)


@pytest.mark.parametrize("name", ["image", "text"])
def test_stage_replacement(name):
    tower = getattr(golden(), name)
    x = images(2) if name == "image" else text_for(golden())[0]
    skipped = tower.run(x, stages={"block.1": lambda x: x})
    assert torch.equal(skipped, tower.run(tower.run(x, stop="block.1"), start="block.2"))
    edited = tower.run(x, {"block.1": flip}, {"block.1": flip})
    assert torch.equal(edited, skipped)
    assert torch.equal(tower.run(x, stages={"block.1": tower.stages["block.1"]}), tower.run(x))


def test_blocks_with_split_attention_over_the_same_storage(clip):
    for tower, x in ((clip.image, pixels_for(clip)), (clip.text, text_for(clip)[0])):
        split = {point: split_block(block) for point, block in tower.blocks.items()}
        close(tower.run(x, stages=split), tower.run(x))
        assert storages(split) == storages(tower.blocks)


def storages(blocks: dict) -> set[int]:
    return {weight.untyped_storage().data_ptr() for block in blocks.values() for weight in block.parameters()}


def test_the_cut_is_the_earliest_point():
    tower = golden().image
    assert tower.cut([]) == "features"
    assert tower.cut(["tokens", "block.2", "block.10" if "block.10" in tower.points else "block.3"]) == "block.2"
    assert tower.cut(["features", "pixels"]) == "pixels"


def test_an_unknown_point_is_told_with_the_known_ones():
    with pytest.raises(UserError, match=r"image tower has no point 'block\.9'.*pixels, patches") as caught:
        golden().image.cut(["block.9"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"text tower has no point 'patches'.*words"):
        golden().text.cut(["patches"])


def test_opaque_towers(monkeypatch):
    monkeypatch.setattr(family, "_block", lambda block: None)
    clip = CLIP(golden().model, open_clip.SimpleTokenizer(), {"name": "golden"})
    assert clip.image.points == ("pixels", "features")
    assert clip.text.points == ("ids", "features")
    assert (clip.image_width, clip.text_width, clip.width) == (None, None, 64)
    test_image_tower(clip)
    test_text_tower(clip)
    with pytest.raises(UserError, match="no point 'words'"):
        clip.text.cut(["words"])


@pytest.mark.parametrize("kind", TEXT_TOWERS)
def test_text_towers_of_other_kinds(kind):
    """The judge is open_clip's forward, the learned vectors being the embeddings of two tokens not in use."""
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2} | TEXT_TOWERS[kind]
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(embed_dim=64, vision_cfg=vision, text_cfg=text).eval()
    model.text.use_pad_mask = kind == "padding mask"
    open_clip.model.set_model_preprocess_cfg(model, vars(open_clip.transform.PreprocessCfg(size=32)))
    tokenizer = open_clip.SimpleTokenizer(context_length=text["context_length"])
    clip = CLIP(model, tokenizer, {"name": kind})
    vectors = torch.randn(2, 64)
    prompts = [[[Slot(0), name, Slot(1), "."], [name, Slot(1), Slot(0)]] for name in ("cat", "golden retriever")]
    found = clip.text.run(clip.tokenize(prompts), {"words": lambda rows: rows.place(vectors)})
    model.text.token_embedding.weight[[5, 6]] = vectors
    stand_ins = [[[5, name, 6, "."], [name, 6, 5]] for name in ("cat", "golden retriever")]
    close(found, model.encode_text(padded(clip, stand_ins)).unflatten(0, (2, 2)))


def padded(clip: CLIP, prompts: list) -> Tensor:
    sequences = [clip.tokenizer.sequence(pieces) for templates in prompts for pieces in templates]
    return torch.tensor([sequence + [0] * (clip.tokenizer.length - len(sequence)) for sequence in sequences])
