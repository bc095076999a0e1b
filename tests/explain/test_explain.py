"""Attention rollout, nearest words and class weights against what they are by definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import clipadapt
from clipadapt import explain
from clipadapt.adaptations.context import embed
from clipadapt.backbone.attention import attention_weights
from clipadapt.backbone.open_clip import CLIP
from clipadapt.cli import main
from clipadapt.errors import UserError
from clipadapt.explain.class_weights import class_weights
from clipadapt.explain.rollout import has_class_token, patch_grid
from clipadapt.report.explained import attention_picture
from clipadapt.tasks.classification import Classifier, zero_shot_classifier
from tests.shown import shown_run
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images


def classifier(name, *overrides):
    return Classifier(golden(), adaptation(name, *overrides), CLASS_NAMES)


def test_attention_weights_are_those_of_pytorch():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(3, 5, 8)
    expected = attention(x, x, x, need_weights=True, average_attn_weights=False)[1]
    close(attention_weights(attention, x), expected)


def rollout_by_definition(clip, pixels):
    """The product of (A + 1) / 2 over the blocks, and the class token's row of it without the class token's column."""
    x, product = clip.image.run(pixels, stop="block.0"), None
    for block in clip.image.blocks.values():
        normed = block.ln_1(x)
        weights = block.attn(normed, normed, normed, need_weights=True)[1]
        step = (weights + torch.eye(x.shape[-2])) / 2
        product = step if product is None else step @ product
        x = x + block.attn(normed, normed, normed)[0]
        x = x + block.mlp(block.ln_2(x))
    return product[:, 0, 1:]


@torch.no_grad()
def test_rollout_of_zero_shot_is_the_product_of_its_attention():
    clip, pixels = golden(), images(2)
    found = explain.attention_rollout(classifier("zero_shot"), pixels)
    assert has_class_token(clip) and found.shape == (2, *patch_grid(clip))
    close(found.flatten(1), rollout_by_definition(clip, pixels))


@torch.no_grad()
def test_learned_tokens_hold_nothing_of_the_image():
    found = explain.attention_rollout(classifier("image_tokens", "method.adaptation.depth=all"), images(2))
    plain = explain.attention_rollout(classifier("zero_shot"), images(2))
    assert found.shape == plain.shape and (found >= 0).all()
    assert (found.sum(dim=(1, 2)) < plain.sum(dim=(1, 2))).all()


@pytest.mark.slow
@torch.no_grad()
def test_rollout_has_the_adaptations_blocks():
    model = classifier("lora")
    plain = explain.attention_rollout(model, images(1))
    close(plain, explain.attention_rollout(classifier("zero_shot"), images(1)))  # it starts as the frozen tower
    for weight in model.adaptation.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    assert (explain.attention_rollout(model, images(1)) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_several_visual_prompts_are_averaged():
    found = explain.attention_rollout(classifier("visual_transport"), images(2))
    assert found.shape == (2, *patch_grid(golden())) and (found.sum(dim=(1, 2)) < 1).all()


@pytest.mark.slow
def test_a_convolutional_tower_has_no_rollout():
    clip = CLIP.load("RN50", None)
    with pytest.raises(UserError, match=r"the image tower of RN50 is none of them \(its points are pixels, layer\.1"):
        patch_grid(clip)


def test_the_word_itself_is_nearest_to_its_embedding():
    clip, made = golden(), adaptation("context", "method.adaptation.n_ctx=2")
    tokens = clip.tokenizer.encode("cat dog")
    with torch.no_grad():
        made.context.copy_(embed(clip, tokens))
    (context,) = explain.nearest_words(clip, made, 2)
    assert [words[0].word for words in context] == [clip.tokenizer.decode([token]).strip() for token in tokens]
    assert all(words[0].distance < 1e-3 < words[1].distance for words in context)


@pytest.mark.parametrize(
    "name, shape",
    [("deep_context", (1, 4)), ("conditional_context", (1, 4)), ("transport_context", (4, 16)), ("zero_shot", None)],
)
def test_which_methods_have_context_vectors(name, shape):
    made = adaptation(name)
    if shape is None:
        with pytest.raises(UserError, match="this method learns no vectors in place of words"):
            explain.nearest_words(golden(), made, 1)
    else:
        found = explain.nearest_words(golden(), made, 1)
        assert (len(found), len(found[0])) == shape


@torch.no_grad()
def test_class_weights_are_read_from_logits_wherever_they_are():
    zero_shot = classifier("zero_shot")
    close(class_weights(zero_shot), zero_shot.class_embeddings())
    head = classifier("linear_head")
    head.adaptation.weight.copy_(torch.randn(head.adaptation.weight.shape))
    close(class_weights(head), functional.normalize(head.adaptation.weight, dim=-1))
    before, after = explain.before_and_after(zero_shot, head)
    one, other, shares = explain.in_plane(before, after)
    assert one.shape == other.shape == (len(CLASS_NAMES), 2) and 0 < shares[1] <= shares[0] < 1
    distances = torch.cdist(torch.cat([one, other]), torch.cat([one, other]))
    assert (
        distances <= torch.cdist(torch.cat([before, after]).double(), torch.cat([before, after]).double()) + 1e-6
    ).all()


@pytest.mark.parametrize("name", ["feature_cache", "conditional_context", "visual_transport"])
def test_methods_without_class_weights(name):
    model = classifier(name)
    if name == "feature_cache":
        with torch.no_grad():
            for value in model.adaptation.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.randn(value.shape))
    with pytest.raises(UserError, match="are no products of image features and class weights"):
        class_weights(model)


def test_class_weights_that_stay_are_told():
    with pytest.raises(UserError, match="the class weights are zero-shot"):
        explain.before_and_after(zero_shot_classifier(golden(), TASK), classifier("zero_shot"))


def test_attention_is_drawn_over_the_image():
    attention = np.zeros((2, 2))
    attention[0, 1] = 1
    found = np.asarray(attention_picture(Image.new("RGB", (32, 32), "white"), attention)).astype(int)
    assert found.shape == (224, 224, 3) and found[5, -5].sum() > found[5, 5].sum() + 200
    assert np.asarray(attention_picture(Image.new("RGB", (500, 300)), attention)).shape == (300, 500, 3)


@pytest.fixture(scope="module")
def run():
    return shown_run()


def test_all_parts_of_a_run(run, capsys):
    assert main(["explain", f"run={run}", "count=3"]) == 0
    said = capsys.readouterr().out
    assert "Words nearest to the learned vectors" in said and "Written to" in said
    assert {path.name for path in (run / "explain").iterdir()} == {"words.csv", "attention.png", "class_weights.png"}
    header, *rows = (run / "explain/words.csv").read_text().splitlines()
    assert header == "context,vector,word_1,distance_1,word_2,distance_2,word_3,distance_3" and len(rows) == 16
    assert main(["show", f"run={run}"]) == 0  # its files are whole


def test_images_of_ones_own_and_wrong_words(run, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (run / "explain/attention.png").unlink(missing_ok=True)
    assert main(["explain", f"run={run}", f"images={tmp_path}"]) == 0
    assert (run / "explain/attention.png").is_file()
    (tmp_path / "red.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["explain", f"run={run}", f"images={tmp_path}"]) == 2
    assert "clipadapt: the image" in capsys.readouterr().err
    assert main(["explain", f"run={run}", "count=0"]) == 2
    assert "count=0 does not fit: it must be a whole number from 1 to 64" in capsys.readouterr().err


def test_an_artifact_stays_as_it_is(run, tmp_path, capsys):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    packed = clipadapt.load(run, device="cpu").save_pretrained(tmp_path / "packed")
    before = {path.name: path.read_bytes() for path in packed.iterdir()}
    words = ["explain", f"run={packed}", f"images={tmp_path / 'red.png'}"]
    assert main(words) == 2 and "out=explained images=photos" in capsys.readouterr().err
    assert main([*words, f"out={tmp_path / 'out'}"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"words.csv", "attention.png", "class_weights.png"}
    assert before == {path.name: path.read_bytes() for path in packed.iterdir()}
