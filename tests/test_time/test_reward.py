"""Tuning to another backbone's reward: what its golden record doesn't show."""

import copy

import pytest
import torch

from clipadapt.errors import UserError
from clipadapt.runs.methods import load_teachers
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.reward import RewardTuning, pixels_for
from tests.golden.quantities import tiny
from tests.small import CLASS_NAMES, adaptation, close, golden, images

WORDS = "method.adaptation.words=a photo of a"
TEACHER = {"name": "other", "pretrained": None}
SCORES = torch.tensor([[[3.0, 1.0], [0.0, 4.0]]])
"""Of two samples of two views of an image."""


@pytest.fixture(scope="module")
def teacher():
    return tiny(1, "cpu")


def tuning(*teachers, **changes):
    made = RewardTuning(TEACHER, ["a photo of a {}."], **{"views": 4, "selection": 0.5, "steps": 2, **changes})
    made.teachers = teachers
    return made


@pytest.mark.parametrize("words", [["context", WORDS], ["feature_adapter"]], ids=["together", "one by one"])
def test_images_together_are_images_apart(teacher, words):
    classifier, method = Classifier(golden(), adaptation(*words), CLASS_NAMES), tuning(teacher)
    pixels = [*images(12).unflatten(0, (3, 4))]
    together, apart = (
        method.tune_to_pixels(classifier, pixels),
        [method.tune_to_pixels(classifier, [views]) for views in pixels],
    )
    close(together.logits, torch.cat([one.logits for one in apart]))
    close(together.values["rewards"], torch.cat([one.values["rewards"] for one in apart]))


def test_the_baseline_is_of_each_view_or_of_the_whole_image():
    close(tuning().rewards(SCORES), torch.tensor([[[1.0, -1], [-2, 2]]]))
    close(tuning(whole_batch=True).rewards(SCORES), torch.tensor([[[1.0, -1], [-2, 2]]]))
    shifted = SCORES + torch.tensor([[[0.0], [4]]])
    close(tuning(whole_batch=True).rewards(shifted), torch.tensor([[[-1.0, -3], [0, 4]]]))


def test_amplified_rewards_have_unit_deviation():
    close(tuning(amplify=True).rewards(SCORES).std(dim=-1), torch.ones(1, 2), 1e-4)


@pytest.mark.parametrize("whole_batch", [False, True])
def test_a_single_sample_of_a_view_is_its_own_reward(whole_batch):
    alone = SCORES[..., :1]
    expected = alone - alone.mean() if whole_batch else alone
    close(tuning(amplify=False, whole_batch=whole_batch).rewards(alone), expected)


def test_copies_share_the_teacher(teacher):
    method = tuning(teacher)
    made = copy.deepcopy(method)
    assert made.teachers[0] is teacher and made.values is not method.values
    made.prompts.append(["a cat"])
    assert method.prompts == []


def test_the_teacher_sees_views_as_it_expects_them(teacher, monkeypatch):
    clip, pixels = golden(), images(2)
    assert torch.equal(pixels_for(teacher, pixels, clip), pixels)
    other = {**teacher.preprocess, "size": 48, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    monkeypatch.setattr(teacher, "preprocess", other)
    blank = torch.zeros(1, 3, 32, 32)  # the backbone's mean
    found = pixels_for(teacher, blank, clip)
    assert found.shape == (1, 3, 48, 48)
    close(found, torch.tensor(clip.preprocess["mean"])[:, None, None].expand_as(found))


def test_a_teacher_without_weights():
    with pytest.raises(UserError, match="a teacher needs a name and pretrained weights"):
        load_teachers(golden(), [{"name": "ViT-L-14"}], "method.test_time.teacher")
