"""Test-time tuning to the reward of another frozen backbone."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import Templates, mean_over_names, prompts_by_name
from clipadapt.objectives.base import BackboneSpec
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.episodic import Decay, EpisodicTuning, Rate, Share, Tuned, ViewOutputs
from clipadapt.test_time.views import Count

LEAST_DEVIATION = 1e-5
"""Added to the standard deviation that rewards are divided by."""


class RewardTuning(EpisodicTuning):
    """RLCF: policy gradient with a frozen CLIP's reward (Zhao et al., ICLR 2024, arXiv:2305.18010, section 3).

    The most probable classes of each selected view are the samples, anew in each step. The score of a sample is the
    teacher's cosine of the view and hand-written prompts of the class, times a weight, and at least zero. Its reward is
    the score less the mean score of the view's samples; a single sample has no such baseline. The objective is the mean
    of rewards times cross entropies. The logits are those of the first view after tuning.

    The teacher gets the selected views: resized to its image size and normalised as it expects, if these are others.

    Args:
        teacher: `name` and `pretrained` of the backbone that gives rewards; the run loads it.
        templates: sentences with `{}` for the teacher.
        views: number of views of each image: the centre crop, then random crops.
        images: number of images that are tuned to at once.
        selection: share of the views that are used.
        steps: number of optimiser steps.
        lr: learning rate.
        weight_decay: decoupled weight decay.
        samples: number of classes that are sampled for each view; all classes, if there are fewer.
        score_weight: weight of the teacher's cosine.
        amplify: whether rewards are divided by the scores' standard deviation.
        whole_batch: whether the mean and the deviation are those of all samples of an image, not of each view's.
    """

    sees_pixels = True

    def __init__(
        self,
        teacher: BackboneSpec,
        templates: Templates,
        views: Count = 64,
        images: Count = 8,
        selection: Share = 0.1,
        steps: Count = 3,
        lr: Rate = 0.007,
        weight_decay: Decay = 0.0005,
        samples: Count = 3,
        score_weight: Annotated[float, Ge(0)] = 2.5,
        amplify: bool = False,
        whole_batch: bool = False,
    ) -> None:
        super().__init__(views, images, selection, steps, lr, weight_decay)
        self.teacher_specs, self.templates = [teacher], templates
        self.prompts: list[list[str]] = []
        self.classes = torch.empty(0)
        self.samples, self.score_weight = samples, score_weight
        self.amplify, self.whole_batch = amplify, whole_batch

    def logits_of_pixels(self, classifier: Classifier, pixels: Sequence[Tensor], text: Tensor | None = None) -> Tensor:
        """Compute logits `[B, C]` of views `[V, 3, height, width]` of B images; errors as of `tune`."""
        return self.tune_to_pixels(classifier, pixels, text).logits

    def tune_to_pixels(self, classifier: Classifier, pixels: Sequence[Tensor], text: Tensor | None = None) -> Tuned:
        """Tune to each of B images, given views `[V, 3, height, width]` of each; errors as of `tune`."""
        self.check(classifier.adaptation)
        x = torch.stack([classifier.prefix(views) for views in pixels])
        return self.tune(classifier, x, text, pixels)

    @torch.no_grad()
    def class_features(self, classifier: Classifier) -> Tensor:
        """Return the teacher's class embeddings `[C, D]`, which are computed once for the same classes."""
        task = SimpleNamespace(class_names=classifier.class_names, words=classifier.words)
        prompts, counts = prompts_by_name(self.templates, task)
        if prompts != self.prompts:
            (teacher,) = self.teachers
            unit = functional.normalize(teacher.text_features(prompts).float(), dim=-1)
            self.classes = functional.normalize(mean_over_names(unit, counts).mean(dim=1), dim=-1)
            self.prompts = prompts
        return self.classes

    @torch.no_grad()
    def scores(self, classifier: Classifier, pixels: Sequence[Tensor] | None, chosen: Tensor) -> Tensor:
        """Compute the teacher's scores `[B, K, C]` of all classes for the selected views, which alone it sees."""
        assert pixels is not None
        (teacher,), classes = self.teachers, self.class_features(classifier)
        seen = [pixels_for(teacher, views[own], classifier.clip) for views, own in zip(pixels, chosen, strict=True)]
        features = torch.stack([teacher.image.run(views) for views in seen])
        with torch.autocast(features.device.type, enabled=False):
            cosines = functional.normalize(features.float(), dim=-1) @ classes.T
        return (self.score_weight * cosines).clamp_min(0)

    def values(self, outputs: ViewOutputs) -> dict[str, Tensor]:
        """Compute the `objective [B]`, and for S samples of each view the `sampled` classes, `scores`, and `rewards`.

        The samples, `[B, V, S]` each, are in order of decreasing logits.
        """
        assert outputs.scores is not None
        sampled = outputs.logits.detach().topk(min(self.samples, outputs.logits.shape[-1]), dim=-1).indices
        scores = outputs.scores.gather(-1, sampled)
        rewards = self.rewards(scores)
        losses = -outputs.logits.log_softmax(dim=-1).gather(-1, sampled)
        objective = (rewards * losses).mean(dim=(-2, -1))
        return {"objective": objective, "sampled": sampled, "scores": scores, "rewards": rewards}

    def rewards(self, scores: Tensor) -> Tensor:
        """Compute the rewards of samples from their scores, `[B, V, S]` both."""
        together = scores.flatten(-2).unsqueeze(-2) if self.whole_batch else scores
        if together.shape[-1] > 1:
            centred = together - together.mean(dim=-1, keepdim=True)
            deviation = together.std(dim=-1, keepdim=True) + LEAST_DEVIATION
            together = centred / deviation if self.amplify else centred
        return together.reshape(scores.shape)


def pixels_for(teacher: DualEncoder, pixels: Tensor, clip: DualEncoder) -> Tensor:
    """Return images `[V, 3, height, width]` made for one backbone as another reads them, resized and normalised."""
    if pixels.shape[-2:] != teacher.image_size:
        pixels = functional.interpolate(pixels.float(), size=teacher.image_size, mode="bicubic", align_corners=True)
    mean, std = (pixels.new_tensor(teacher.preprocess[key])[:, None, None] for key in ("mean", "std"))
    own_mean, own_std = (pixels.new_tensor(clip.preprocess[key])[:, None, None] for key in ("mean", "std"))
    same = torch.equal(mean, own_mean) and torch.equal(std, own_std)
    return (pixels if same else (pixels * own_std + own_mean - mean) / std).to(teacher.dtype)
