"""Which methods a backbone serves, held to building them all."""

import warnings
from functools import partial
from typing import Any

import open_clip
import pytest
import torch

from clipadapt import config
from clipadapt.backbone import open_clip as family
from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.runs import methods
from clipadapt.runs.methods import adaptation_maker, methods_for, note_searched, placeholder_task
from clipadapt.tasks.classification import Classifier
from tests.small import TASK, composed, golden, needed

RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16}
NAMES = ["one", "two"]


def unknown(monkeypatch: pytest.MonkeyPatch, question: str, answer: Any) -> CLIP:
    """The tiny backbone as if the architecture of a tower weren't known."""
    monkeypatch.setattr(family, question, lambda module: answer)
    return CLIP.load("tiny", "embedded")


def resnet(monkeypatch: object = None) -> CLIP:
    torch.manual_seed(0)
    text_config = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    model = open_clip.CLIP(embed_dim=64, vision_cfg=RESNET, text_cfg=text_config)
    open_clip.model.set_model_preprocess_cfg(model, vars(open_clip.transform.PreprocessCfg(size=32)))
    return CLIP(model, open_clip.SimpleTokenizer(), {"name": "small RN50"})


BACKBONES = {
    "tiny": lambda monkeypatch: CLIP.load("tiny", "embedded"),
    "resnet": resnet,
    "unknown image tower": partial(unknown, question="_is_vision_transformer", answer=False),
    "unknown text tower": partial(unknown, question="_text_blocks", answer=None),
}


def built(clip: CLIP, name: str) -> bool:
    task = placeholder_task(clip, NAMES, ["a photo of a {}."], (1, len(NAMES), clip.width or 0))
    try:
        Classifier(clip, adaptation_maker(composed(f"method={name}", *needed(name, NAMES)))(clip, task), NAMES)
    except UserError:
        return False
    return True


QUICK = ("tiny", "resnet")
"""Backbones of the default run; `-m slow` has the others."""


@pytest.mark.parametrize(
    "backbone", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_what_adaptations_declare_is_what_can_be_built(backbone, monkeypatch):
    clip = BACKBONES[backbone](monkeypatch)
    expected = [name for name in config.options("method") if built(clip, name)]
    assert methods_for(clip) == expected
    assert (len(expected) == len(config.options("method"))) == (backbone == "tiny")


def test_nothing_is_composed_or_built(monkeypatch):
    def refused(*given, **options):
        raise AssertionError("composed or built")

    for name in ("compose", "build"):
        monkeypatch.setattr(methods.configuration, name, refused)
    monkeypatch.setattr(methods, "adaptation_maker", refused)
    monkeypatch.setattr("hydra.compose", refused)
    monkeypatch.setattr("clipadapt.adaptations.base.Adaptation.__init__", refused)
    found = methods_for(resnet())
    assert {"coop", "zero_shot", "tip_adapter", "plot"} <= {*found}
    assert not {"vpt", "maple", "clip_lora", "ivlp", "promptkd"} & {*found}


def test_methods_of_a_users_own(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "longer.yaml").write_text(
        "# @package _global_\ndefaults:\n  - vpt\n  - _self_\nmethod:\n  name: longer\n  also: {}\n"
    )
    (tmp_path / "method" / "text_lora.yaml").write_text(
        "# @package _global_\ndefaults:\n  - clip_lora\n  - _self_\nmethod:\n  adaptation: {towers: text}\n"
    )
    (tmp_path / "method" / "mine.yaml").write_text(
        "# @package _global_\nmethod:\n  name: mine\n  adaptation: {_target_: mine.Mine}\n"
    )
    (tmp_path / "method" / "broken.yaml").write_text("# @package _global_\nmethod: {name: broken}\n")
    (tmp_path / "mine.py").write_text(
        "from clipadapt.adaptations import Adaptation\n\n\nclass Mine(Adaptation):\n"
        "    required_points = ('image.layer.2',)\n"
    )
    own = {"longer", "text_lora", "mine", "broken"}
    assert own & {*methods_for(CLIP.load("tiny", "embedded"), tmp_path)} == {"longer", "text_lora"}
    assert own & {*methods_for(resnet(), tmp_path)} == {"text_lora", "mine"}


def test_a_setting_that_a_search_replaces_is_told():
    def check(*overrides):
        settings = composed(*overrides)
        note_searched(adaptation_maker(settings)(golden(), TASK), settings)

    with pytest.warns(UserWarning, match=r"method\.adaptation\.alpha is replaced by what does best .*\.search=false"):
        check("method=gda_clip", "method.adaptation.alpha=7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check("method=gda_clip", "method.adaptation.alpha=7", "method.adaptation.search=false")
        check("method=tip_adapter")
        check("method=tip_adapter_f", "method.adaptation.alpha=7")
        check("method=coop")
