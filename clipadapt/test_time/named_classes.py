"""Tuning to texts that name an image's most probable classes: CLIPArTT."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.interfaces import Template
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.batch import BatchTuning, Similarities, Tuning
from clipadapt.test_time.episodic import Rate
from clipadapt.test_time.views import Count


class NamedClassesTuning(BatchTuning):
    """CLIPArTT: texts that name each image's most probable classes (Hakim et al., WACV 2025, arXiv:2405.00754).

    Before each step, every image gets a text with the names of its most probable classes, joined by "or". The objective
    is the cross entropy of images and texts with targets from how alike images are, and texts. Targets aren't detached
    and sum to one over the images for each text, as in the released code.

    Args:
        batch_size: number of images of a batch, which are tuned to together.
        steps: number of optimiser steps for a batch.
        lr: learning rate.
        named: number of classes that a text names; all classes, if there are fewer.
        template: sentence with `{}` for a class name, or for several.
        similarities: those that targets are made of: between images, between texts, or both.
    """

    def __init__(
        self,
        batch_size: Count = 128,
        steps: Count = 10,
        lr: Rate = 1e-3,
        named: Count = 3,
        template: Template = "a photo of a {}",
        similarities: Similarities = "both",
    ) -> None:
        super().__init__(batch_size, lr)
        self.steps, self.named = steps, named
        self.template, self.similarities = template, similarities

    def class_features(self, classifier: Classifier) -> Tensor:
        """Return the unit class embeddings `[C, D]` of the template."""
        return self.template_features(classifier, [self.template])[0]

    def run(self, tuning: Tuning) -> None:
        """Take all steps of a batch."""
        optimizer, choose = self.optimizer(tuning), self.chooser(tuning.classifier)
        for _ in range(self.steps):
            tuning.step(optimizer, choose, self.similarities)

    def chooser(self, classifier: Classifier) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return what chooses the classes and the texts of a step, as of `Tuning.step`; it encodes a text once."""
        classes = self.class_features(classifier)
        kept: dict[tuple[int, ...], Tensor] = {}

        def choose(features: Tensor) -> tuple[Tensor, Tensor]:
            named = (features @ classes.T).topk(min(self.named, len(classes)), dim=-1).indices
            rows = [tuple(row) for row in named.tolist()]
            new = [row for row in dict.fromkeys(rows) if row not in kept]
            if new:
                kept.update(zip(new, self.named_features(classifier, new), strict=True))
            return named, torch.stack([kept[row] for row in rows])

        return choose

    @torch.no_grad()
    def named_features(self, classifier: Classifier, rows: list[tuple[int, ...]]) -> Tensor:
        """Return unit features `[N, D]` of texts, each of which names several classes by their first names for CLIP."""
        names = [classifier.words.get(name, [name])[0] for name in classifier.class_names]
        texts = [self.template.replace("{}", " or ".join(names[label] for label in row)) for row in rows]
        return functional.normalize(classifier.clip.text_features([[text] for text in texts])[:, 0].float(), dim=-1)
