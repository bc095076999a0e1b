"""The backbone as a user names it: mistakes, files, seeds, number formats, words it never saw."""

import time
import warnings

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional

from clipadapt.adaptations import Context, ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError, WeightsError
from clipadapt.runs.predictor import Predictor
from clipadapt.tasks.classification import Classifier
from tests.small import TASK, close, golden, images

SMALLEST = "ViT-S-32-alt"  # of open_clip's models


@pytest.fixture(scope="module")
def random_tiny() -> CLIP:
    return CLIP.load("tiny", None, seed=3)


@pytest.mark.parametrize(
    ("name", "pretrained", "said"),
    [
        ("ViT-B16", "openai", ["no backbone 'ViT-B16'", "did you mean 'ViT-B-16'?"]),
        ("tinny", None, ["no backbone 'tinny'", "did you mean 'tiny'?"]),
        ("ViT-B-16", "opnai", ["'ViT-B-16' has no pretrained weights 'opnai'", "did you mean 'openai'?", "null"]),
        ("ViT-B-16", "weights/mine.pt", ["'weights/mine.pt', nor is that a file", "known are "]),
        ("tiny", "openai", ["'tiny' has no weights 'openai'", "'embedded', a checkpoint file or null"]),
        ("tiny", "mine.pt", ["'tiny' has no weights 'mine.pt'"]),
    ],
)
def test_a_wrong_name_is_told_at_once(name, pretrained, said):
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        CLIP.load(name, pretrained)
    assert time.monotonic() - began < 5
    assert all(part in str(caught.value) for part in said)
    assert "\n" not in str(caught.value)


def test_prompts_that_do_not_fit():
    clip = golden()
    with pytest.raises(UserError, match=r"'a photo of a (very )+.*takes 8\d tokens \(0 of them learned\).*at most 77"):
        clip.tokenize([["a photo of a " + "very " * 75 + "old cat."]])
    context = Context(clip, TASK, n_ctx=80)
    with pytest.raises(UserError, match=r"'cat\.' takes 84 tokens \(80 of them learned\).*use fewer context tokens"):
        clip.tokenize(context.prompts(["cat"]))
    longest = Context(clip, TASK, n_ctx=73)
    assert len(clip.tokenize(longest.prompts(["cat"])).values) == 77


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_file(random_tiny, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    state = random_tiny.model.state_dict()
    if suffix == "pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    loaded = CLIP.load("tiny", str(path))
    assert loaded.fingerprint == random_tiny.fingerprint
    assert loaded.source == {
        "_target_": "clipadapt.backbone.open_clip.load",
        "name": "tiny",
        "pretrained": str(path),
        "seed": 0,
        "image_size": None,
    }
    assert torch.equal(loaded.image.run(images(1)), random_tiny.image.run(images(1)))


@pytest.mark.parametrize(
    ("name", "pretrained"), [("tiny", "embedded"), pytest.param(SMALLEST, None, marks=pytest.mark.slow)]
)
def test_another_image_size(name, pretrained):
    usual, larger = (CLIP.load(name, pretrained, image_size=size) for size in (None, 48))
    assert larger.image_size == (48, 48) != usual.image_size and larger.fingerprint != usual.fingerprint
    assert larger.transform(Image.new("RGB", (100, 60))).shape == (3, 48, 48)
    features = larger.image.run(torch.rand(2, 3, 48, 48))
    assert features.shape == (2, usual.width) and features.isfinite().all()
    assert larger.another(pretrained=None).image_size == (48, 48)


@pytest.mark.parametrize("name", ["RN50", SMALLEST])
def test_an_image_size_below_one_patch(name):
    with pytest.raises(WeightsError, match=rf"image_size=16 is smaller than one patch of '{name}'"):
        CLIP.load(name, None, image_size=16)


@pytest.mark.parametrize("name", ["tiny", SMALLEST])
@pytest.mark.parametrize(
    ("file", "content"),
    [("other.pt", {"some.weight": torch.zeros(3)}), ("a.pt", "text"), ("a.safetensors", "text"), ("a.pt", "")],
)
def test_a_file_that_is_no_checkpoint_of_it(tmp_path, name, file, content):
    path = tmp_path / file
    if isinstance(content, str):
        path.write_text(content)
    else:
        torch.save(content, path)
    with pytest.raises(
        UserError, match=f"'{path}' of backbone '{name}' could not be loaded.*no checkpoint of this backbone"
    ) as caught:
        CLIP.load(name, str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [32, (32, 32), [32, 32]])
def test_the_size_of_images_is_a_pair(random_tiny, monkeypatch, size):
    monkeypatch.setitem(random_tiny.preprocess, "size", size)
    assert random_tiny.image_size == (32, 32)


def test_random_weights_follow_from_the_seed(random_tiny):
    before = torch.get_rng_state()
    again, other = CLIP.load("tiny", None, seed=3), CLIP.load("tiny", None, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.fingerprint == random_tiny.fingerprint != other.fingerprint
    assert torch.equal(again.image.run(images(2)), random_tiny.image.run(images(2)))
    assert not torch.allclose(other.image.run(images(2)), random_tiny.image.run(images(2)))


def test_the_fingerprint_is_of_every_weight(random_tiny):
    found = {random_tiny.fingerprint}
    for name in ("logit_scale", "visual.ln_post.bias", "transformer.resblocks.1.mlp.c_fc.weight"):
        model = CLIP.load("tiny", None, seed=3).model
        model.get_parameter(name).data.view(-1)[0] += 1e-3
        found.add(CLIP(model, open_clip.SimpleTokenizer(), random_tiny.source).fingerprint)
    assert len(found) == 4


def test_it_is_frozen(random_tiny):
    assert not any(weight.requires_grad for weight in random_tiny.model.parameters())
    assert not random_tiny.model.training
    assert random_tiny.parameters == sum(weight.numel() for weight in random_tiny.model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_number_formats(dtype):
    clip = CLIP.load("tiny", None, seed=3)
    rows = clip.tokenize([["a photo of a cat."], ["two golden retrievers"]])
    with torch.no_grad():
        before = clip.image.run(images(2)), clip.text.run(rows)
        clip.to("cpu", dtype)
        after = clip.image.run(images(2)), clip.text.run(rows)
    assert clip.dtype == dtype and clip.device.type == "cpu"
    for full, other in zip(before, after, strict=True):
        assert other.dtype == dtype and other.isfinite().all()
        close(other.float(), full, 0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_towers_on_the_gpu(dtype):
    clip = CLIP.load("tiny", None, seed=3)
    prompts = [["a photo of a cat."], ["two golden retrievers"]]
    with torch.no_grad():
        before = clip.image.run(images(2)), clip.text.run(clip.tokenize(prompts))
        clip.to("cuda", dtype)
        after = clip.image.run(images(2).cuda()), clip.text.run(clip.tokenize(prompts))
    for full, other in zip(before, after, strict=True):
        close(other.float().cpu(), full, 0.05 if dtype == torch.bfloat16 else 5e-3)


def test_what_is_said_of_it(random_tiny):
    assert random_tiny.scale == pytest.approx(random_tiny.model.logit_scale.exp().item())
    height, width = random_tiny.image_size
    pixels = images(1, height)
    assert random_tiny.image.run(pixels).shape == (1, random_tiny.width)
    assert random_tiny.image.run(pixels, stop="patches").shape[-1] == random_tiny.image_width
    words = random_tiny.text.run(random_tiny.tokenize([["cat"]]), stop="words")
    assert words.values.shape[-1] == random_tiny.text_width
    assert (height, width) == tuple(random_tiny.model.visual.image_size)


def test_words_that_the_embedded_backbone_never_saw():
    clip = CLIP.load("tiny", "embedded")
    encode, decode = clip.tokenizer.encode, clip.tokenizer.decode
    words = ((token, decode([token]).strip()) for token in range(1000, 40000) if token not in clip.known_tokens)
    unseen = [word for token, word in words if word.isalpha() and encode(word) == [token]][:2]
    assert len(unseen) == 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clip.tokenize([[f"a {unseen[0]} and {name}", f"{unseen[0]} {name}"] for name in unseen])
    assert len(caught) == 1
    assert issubclass(caught[0].category, UserWarning)
    assert all(f"'{word}'" in str(caught[0].message) for word in unseen)
    seen = next(decode([token]).strip() for token in sorted(clip.known_tokens) if encode(decode([token])) == [token])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.tokenize([[seen]])
        CLIP.load("tiny", None).tokenize([[" ".join(unseen)]])


def test_a_tokenizer_that_cannot_be_had(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("We couldn't connect to the hub. Check your connection.\nMore lines.")

    monkeypatch.setattr(open_clip, "get_tokenizer", unreachable)
    clip = CLIP.load(SMALLEST, None)
    with pytest.raises(
        UserError, match=rf"^the tokenizer of backbone '{SMALLEST}' could not be loaded \(We couldn't"
    ) as caught:
        clip.tokenize([["a cat"]])
    assert "\n" not in str(caught.value)
    assert clip.text.run(clip.arrange([[1, 2, 3]], (1, 1))).isfinite().all()


def test_the_logit_bias_of_a_model_trained_with_a_sigmoid():
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    model = open_clip.CustomTextCLIP(64, vision, text, init_logit_bias=-10.0)
    open_clip.model.set_model_preprocess_cfg(model, vars(open_clip.transform.PreprocessCfg(size=32)))
    clip = CLIP(model, open_clip.SimpleTokenizer(), {"name": "sigmoid"})
    classifier = Classifier(clip, ZeroShot(clip, TASK), TASK.class_names)
    pixels = images(2)
    image = functional.normalize(model.encode_image(pixels), dim=-1)
    close(classifier(pixels), clip.scale * image @ classifier.class_embeddings().T, 1e-4)
    assert clip.logit_bias == classifier.logit_bias == Predictor(classifier).logit_bias == -10
    assert golden().logit_bias is None


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP"])
def test_siglip_has_one(name):
    assert CLIP.load(name, None).logit_bias == -10


def test_a_word_is_told_once(clip):
    clip = CLIP.load("tiny", "embedded")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("cat", "cat", "dog"):
            clip.tokenize([[name]])
    assert [str(each.message).rpartition(": ")[2] for each in caught] == ["'cat'", "'dog'"]


def test_a_backbone_is_shown_in_one_line(clip):
    assert repr(clip) == f"<CLIP tiny: {clip.parameters:,} weights, images 32 x 32, on cpu>"
    assert "<td" in clip._repr_html_() and "embedded" in clip._repr_html_()


def test_a_sentence_is_a_sentence():
    clip = golden()
    whole = clip.text_features([["a red car"]])
    assert whole.shape[:2] == (1, 1)
    assert torch.equal(clip.text_features(["a red car"]), whole) and torch.equal(clip.text_features("a red car"), whole)
    assert clip.text_features(["a red car", "a dog"]).shape[:2] == (2, 1)
    assert clip.text_features([["a red car", "a dog"]]).shape[:2] == (1, 2)


@pytest.mark.parametrize("given", [[], [[]], None, [1], ["a car", 1], [[1]], 5])
def test_what_is_no_prompt(given):
    with pytest.raises(UserError, match="prompts must be a list of texts"):
        golden().text_features(given)
    with pytest.raises(UserError, match="each class must have as many prompts"):
        golden().text_features([["a car"], ["a dog", "a cat"]])


def test_words_are_told_whole_and_some_of_many():
    clip = CLIP.load("tiny", "embedded")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clip.tokenize([["a photo of a 苹果 (Broforough).", "an SKU-4711."]])
        clip.tokenize([["the 苹果"]])
        clip.tokenize([[" ".join(f"zyx{number}q" for number in range(12))]])
    told = [str(each.message).rpartition(": ")[2] for each in caught]
    assert told[0] == "'苹果', 'Broforough', 'SKU-4711'"
    assert len(told) == 2 and told[1].startswith("'zyx0q', 'zyx1q'") and told[1].endswith("and 2 more")
