"""What is put into blocks: peft's tuners, and CLIP-LoRA."""

import copy
import re
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor

from clipadapt.adaptations import Composed
from clipadapt.adaptations.blocks import split_towers
from clipadapt.adaptations.peft import Peft
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

TABLE = re.findall(
    r"^\| ([A-Z]\w+) \| ([^|]*) \|", Path(__file__).parents[2].joinpath("docs/peft.md").read_text(), re.M
)
WORKS = {name: answer for name, answer in TABLE if answer in ("yes", "no")}
REFUSED = {name: reason for name, reason in TABLE if name not in WORKS}
OPTIONS = {  # that a tuner needs
    "ADALORA": {"total_step": 10},
    "C3A": {"block_size": 32, "init_weights": True},
    "FOURIERFT": {"init_weights": True},
    "IA3": {"feedforward_modules": ["c_fc"]},
    "LN_TUNING": {"target_modules": ["ln_1", "ln_2"]},
}
PIXELS = images(2)


def options(kind: str) -> dict:
    return {"peft_type": kind, "target_modules": ["q_proj", "c_fc"], **OPTIONS.get(kind, {})}


def learn(adapted: torch.nn.Module, size: float = 0.05) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return adapted.eval()


@torch.no_grad()
def features(clip: CLIP, stages: dict) -> Tensor:
    return clip.image.run(PIXELS, stages=stages)


def test_every_tuner_is_in_the_documentation():
    assert {kind.value for kind in peft.PeftType} <= {*WORKS, *REFUSED}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_peft_refuses_is_told_in_its_words(kind):
    config = {"peft_type": kind}
    if "target_modules" in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind].__dataclass_fields__:
        config["target_modules"] = ["q_proj", "c_fc"]
    with pytest.raises(UserError) as caught:
        Peft(golden(), TASK, "image", config)
    assert REFUSED[kind] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", WORKS)
def test_every_tuner(kind, tmp_path):
    clip = golden()
    frozen = {name: weight.clone() for name, weight in clip.model.state_dict().items()}
    tuned = Peft(clip, TASK, "image", options(kind)).eval()
    close(features(clip, tuned.stages("image")), features(clip, {}), 1e-4)
    expected = features(clip, learn(tuned).stages("image"))
    assert (expected - features(clip, {})).abs().max() > 1e-3

    torch.manual_seed(7)
    again = Peft(clip, TASK, "image", options(kind)).eval()
    again.load_state_dict(tuned.state_dict())
    assert torch.equal(features(clip, again.stages("image")), expected)

    loaded = loaded_by_peft(clip, tuned, tmp_path)
    assert torch.equal(features(clip, loaded), expected)
    assert all(torch.equal(weight, frozen[name]) for name, weight in clip.model.state_dict().items())


def loaded_by_peft(clip: CLIP, tuned: Peft, folder: Path) -> dict:
    """The image tower's blocks as peft reads them from what was exported."""
    for name, content in tuned.export().items():
        folder.joinpath(name).parent.mkdir(exist_ok=True)
        folder.joinpath(name).write_bytes(content)
    model = peft.PeftModel.from_pretrained(split_towers(clip, "image"), str(folder / "peft")).base_model.model
    return {f"block.{i}": block for i, block in enumerate(model["image"]["block"])}


@pytest.mark.parametrize("kind", WORKS)
@torch.no_grad()
def test_interpolation_is_between_effective_weights(kind):
    tuned = Peft(golden(), TASK, "image", options(kind))
    if WORKS[kind] == "no":
        with pytest.raises(UserError, match=r"can't express.*LORA"):
            tuned.interpolate(1.0)
        return
    mine, theirs = learn(tuned).stages("image")["block.0"], golden().image.blocks["block.0"]
    mine, theirs = (mine.ln_1, theirs.ln_1) if kind == "LN_TUNING" else (mine.mlp.c_fc, theirs.mlp.c_fc)
    x = torch.randn(3, 128)
    learned, start = mine(x), theirs(x)
    tuned.interpolate(0.3)
    close(mine(x) - start, 0.3 * (learned - start), 1e-3)
    tuned.interpolate(0)
    close(mine(x), start)


def test_variants_that_are_not_linear_are_not_interpolated():
    for more in ({"use_dora": True}, {"init_lora_weights": "pissa"}):
        with pytest.raises(UserError, match="can't express"):
            Peft(golden(), TASK, "image", {**options("LORA"), **more}).interpolate(0.5)


def test_what_writes_into_weights_gets_a_copy_that_is_kept():
    clip = golden()
    frozen = clip.model.visual.transformer.resblocks[0].mlp.c_fc.weight.clone()
    tuned = Peft(clip, TASK, "image", {**options("LORA"), "init_lora_weights": "olora"}).eval()
    close(features(clip, tuned.stages("image")), features(clip, {}), 1e-4)
    assert torch.equal(clip.model.visual.transformer.resblocks[0].mlp.c_fc.weight, frozen)
    assert "image/block/0/mlp/c_fc/base_layer/weight" in tuned.state_dict()


def test_frozen_weights_are_shared():
    clip = golden()
    block = Peft(clip, TASK, "image", options("LORA")).stages("image")["block.1"]
    frozen = clip.image.blocks["block.1"]
    assert block.attn.v_proj.weight.data_ptr() == frozen.attn.in_proj_weight[256:].data_ptr()
    assert block.attn.q_proj.base_layer.weight.data_ptr() == frozen.attn.in_proj_weight.data_ptr()
    assert block.mlp.c_proj.weight.data_ptr() == frozen.mlp.c_proj.weight.data_ptr()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "LORAS"}, r"no tuner 'LORAS'.*did you mean 'LORA'"),
        ({"target_modules": ["q_proj"]}, "no tuner 'None'"),
        ({"peft_type": "LORA", "rank": 4}, r"LORA has no option config\.rank: .*rank_pattern"),
        (
            {"peft_type": "LORA", "target_modules": ["q_proj", "query"]},
            r"target_modules=query has it.*attn\.q_proj.*ln_2",
        ),
        ({"peft_type": "LORA", "target_modules": r"text\..*"}, r"target_modules=text.* has it"),
        ({"peft_type": "LORA", "target_modules": "("}, "no regular expression"),
        ({"peft_type": "LORA"}, "peft refuses LORA: Please specify"),
        ({"peft_type": "LORA", "target_modules": ["attn"]}, "peft refuses LORA: Target module SplitAttention"),
        ({"peft_type": "LORA", "target_modules": ["q_proj"], "r": 0}, "peft refuses LORA: .*positive"),
    ],
    ids=str,
)
def test_mistakes_are_told(config, said):
    with pytest.raises(UserError, match=said):
        Peft(golden(), TASK, "image", config)


def test_a_tower_without_blocks():
    clip = CLIP.load("RN50", None)
    with pytest.raises(UserError, match="image tower has no transformer blocks"):
        Peft(clip, TASK)
    assert "block.0" in Peft(clip, TASK, "text").stages("text")


@pytest.mark.parametrize(
    ("position", "points"), [("bottom", [0]), ("mid", [1]), ("up", [2, 3]), ("half-up", [2, 3]), ("top3", [1, 2, 3])]
)
def test_position(position, points):
    built = adaptation("lora", f"method.adaptation.position={position}", "method.adaptation.towers=image")
    assert [*built.stages("image")] == [f"block.{i}" for i in points]
    assert built.stages("text") == {} and len(built.templates) == 2


def weights_in_both_modes(classifier: Classifier) -> list[Tensor]:
    return [classifier.train(mode).class_embeddings() for mode in (False, True)]


@pytest.mark.parametrize("dropout", [0, 0.5])
def test_in_training_each_prompt_has_masks_of_its_own(dropout):
    built = learn(adaptation("lora", f"method.adaptation.dropout={dropout}"))
    classifier = Classifier(golden(), built, ["cat", "cat"])
    assert built.capabilities.unshared_prefix == (dropout > 0)
    apart = [float((first - second).detach().abs().max()) for first, second in weights_in_both_modes(classifier)]
    assert apart[0] < 1e-5 and (apart[1] > 1e-3) == (dropout > 0)


def test_rows_of_ones_own_change_nothing():
    clip, prompts = golden(), adaptation("context").prompts(CLASS_NAMES)
    shared, own = (clip.tokenize_in_chunks(prompts, unshared_prefix=own) for own in (False, True))
    assert own.rows > shared.rows and own.chunks[0][0].layout.prefix == 0
    close(own.run(clip.text), shared.run(clip.text))


def test_updates_are_those_of_the_weights():
    """The judge is open_clip's forward with weights W + alpha / sqrt(rank) B A."""
    names = ["q", "v", "o"]
    settings = [f"method.adaptation.{key}" for key in ("projections=[q,v,o]", "rank=3", "alpha=2")]
    built = learn(adaptation("lora", *settings))
    model = copy.deepcopy(golden().model)
    for tower, blocks in (("image", model.visual.transformer.resblocks), ("text", model.transformer.resblocks)):
        for i, block in enumerate(blocks):
            for name in names:
                layer = f"{tower}/block/{i}/attn/{name}_proj".replace("o_proj", "out_proj")
                a, b = (built.get_parameter(f"{layer}/lora_{part}/default/weight") for part in "AB")
                rows = slice(0, 128) if name != "v" else slice(256, 384)
                weight = block.attn.out_proj.weight if name == "o" else block.attn.in_proj_weight[rows]
                weight.data += 2 / 3**0.5 * b.data @ a.data
    texts = golden().tokenizer
    ids = torch.zeros(len(CLASS_NAMES), 77, dtype=torch.long)
    for n, name in enumerate(CLASS_NAMES):
        tokens = texts.sequence(f"a photo of a {name.replace('_', ' ')}.")
        ids[n, : len(tokens)] = torch.tensor(tokens)
    with torch.no_grad():
        image, text = model.encode_image(PIXELS, normalize=True), model.encode_text(ids, normalize=True)
        found = Classifier(golden(), built, CLASS_NAMES)(PIXELS)
    close(found, 100 * image @ text.T, 1e-4)


def test_combined_with_what_reads_all_tokens():
    low_rank = learn(adaptation("lora", "method.adaptation.towers=image"))
    plot = adaptation("transport_context")
    classifier = Classifier(golden(), Composed(golden(), TASK, {"adaptation": plot, "weights": low_rank}), CLASS_NAMES)
    assert classifier(PIXELS).shape == (2, len(CLASS_NAMES))
    assert [*classifier.adaptation.export()] == [
        "weights/peft/adapter_config.json",
        "weights/peft/adapter_model.safetensors",
    ]
    with pytest.raises(UserError, match="can't be combined"):
        Composed(golden(), TASK, {"adaptation": plot, "weights": adaptation("full_finetuning")})


def test_blocks_by_their_numbers():
    built = adaptation("lora", "method.adaptation.towers=image", "method.adaptation.position=[0,2]")
    assert sorted(built.stages("image")) == ["block.0", "block.2"] and not built.stages("text")


def test_a_block_that_is_not_there():
    with pytest.raises(UserError, match="the image tower has no block 7 for position: its last one is 3"):
        adaptation("lora", "method.adaptation.position=[0,7]")


@pytest.mark.parametrize("scaling, scale", [("rank", 2), ("sqrt_rank", 8)])
def test_the_scale_of_a_low_rank_update(scaling, scale):
    of_lora = ["rank=16", "alpha=32", "towers=image", f"scaling={scaling}"]
    built = adaptation("lora", *(f"method.adaptation.{each}" for each in of_lora))
    assert built.blocks.get_submodule("image.block.0.attn.q_proj").scaling == {"default": scale}
