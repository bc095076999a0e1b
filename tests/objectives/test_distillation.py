"""Distillation from frozen backbones: the divergence by hand, their average, mistakes."""

import pytest
import torch
from torch.nn import functional

from clipadapt.backbone.open_clip import CLIP
from clipadapt.errors import UserError
from clipadapt.objectives import Distillation, Output
from clipadapt.runs.methods import load_teachers
from tests.small import CLASS_NAMES, TASK, golden, images

RANDOM = {"name": "tiny", "pretrained": None}


@pytest.fixture(scope="module")
def clip():
    return CLIP.load("tiny", None, seed=3)


@pytest.fixture
def other(monkeypatch):
    """What is loaded as a teacher: the golden CLIP."""
    asked = []
    monkeypatch.setattr(CLIP, "load", lambda **source: asked.append(source) or golden())
    return asked


def distillation(clip, specs, **settings):
    objective = Distillation(clip, TASK, specs, **settings)
    objective.use_teachers(load_teachers(clip, Distillation.teachers_for({"teachers": specs})))
    return objective


def output(logits, *teacher_features):
    return Output(
        logits,
        torch.zeros(1),
        torch.zeros(1),
        frozen=torch.zeros,
        classify=torch.zeros,
        teacher_features=teacher_features,
    )


def zero_shot(clip, features):
    prompts = [[template.replace("{}", name.replace("_", " ")) for template in TASK.templates] for name in CLASS_NAMES]
    text = functional.normalize(clip.text_features(prompts), dim=-1).mean(dim=1)
    return clip.scale * functional.normalize(features, dim=-1) @ functional.normalize(text, dim=-1).T


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_of_the_probabilities(clip, temperature):
    objective = distillation(clip, [RANDOM], temperature=temperature, weight=7.0)
    features, logits = clip.image.run(images(4)), torch.randn(4, 5)
    losses = objective(output(logits, features), torch.zeros(4, dtype=torch.long))
    teacher = (zero_shot(clip, features) / temperature).softmax(dim=-1)
    student = (logits / temperature).softmax(dim=-1)
    divergence = (teacher * (teacher.log() - student.log())).sum() / (4 * 5)
    torch.testing.assert_close(losses, {"distillation": 7 * temperature**2 * divergence})
    own = objective(output(zero_shot(clip, features), features), None)
    assert own["distillation"] == pytest.approx(0, abs=1e-4)


def test_the_backbone_itself_is_not_loaded_again(clip, other):
    assert distillation(clip, [RANDOM]).teachers == [clip]
    assert not other


def test_several_teachers_are_averaged(clip, other):
    objective = distillation(clip, [RANDOM, {"name": "golden", "pretrained": "file.pt"}])
    assert other == [{"name": "golden", "pretrained": "file.pt", "seed": 3, "image_size": None}]
    assert objective.teachers == [clip, golden()]
    teacher_features = [teacher.image.run(images(3)) for teacher in objective.teachers]
    assert [features.shape[1] for features in teacher_features] == [clip.width, 64]
    expected = (
        sum(zero_shot(*pair).softmax(dim=-1) for pair in zip(objective.teachers, teacher_features, strict=True)) / 2
    )
    torch.testing.assert_close(objective.probabilities(output(None, *teacher_features)), expected)


def test_templates_of_the_teachers_own(clip):
    features = clip.image.run(images(2))
    usual, own = (
        distillation(clip, [RANDOM], templates=templates).probabilities(output(None, features))
        for templates in (None, ["a drawing of the {}."])
    )
    assert (usual - own).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        ([], r"teachers is empty: name a backbone, as in \[\{name: ViT-L-14, pretrained: openai\}\]"),
        ([{"name": "tiny"}], "needs a name and pretrained weights"),
        ([{"pretrained": "openai"}], "needs a name and pretrained weights"),
        ([{"name": "ViT-L14", "pretrained": "openai"}], r"in method\.objective\.teachers: .*did you mean 'ViT-L-14'"),
        ([{"name": "tiny", "pretrained": "absent.pt"}], r"in method\.objective\.teachers: .*no weights 'absent\.pt'"),
    ],
)
def test_teachers_that_cannot_be_had(clip, teachers, said):
    with pytest.raises(UserError, match=said):
        load_teachers(clip, Distillation.teachers_for({"teachers": teachers}))
