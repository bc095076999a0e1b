"""Tuning to several templates, whose weights are averaged: WATT."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from clipadapt.interfaces import Template, Templates
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.batch import BatchTuning, Tuning, copies
from clipadapt.test_time.copies import restore
from clipadapt.test_time.episodic import Rate
from clipadapt.test_time.views import Count


class WeightAverageTuning(BatchTuning):
    """WATT: an average of weights tuned to several templates (Osowiechi et al., NeurIPS 2024, arXiv:2406.13875).

    An image's text is that of its most probable class in one template; targets and objective are those of CLIPArTT.
    In each round, steps are taken with one template after another, and the weights as they are after each template are
    averaged, for the next round to start from. If all images of a batch have the same text, the gradient is zero, and
    Adam makes steps of its rounding, as in the released code.

    Args:
        templates: sentences with `{}` for a class name.
        batch_size: number of images of a batch, which are tuned to together.
        steps: number of optimiser steps with a template in a round.
        rounds: number of rounds.
        lr: learning rate.
        parallel: whether each template starts where the round does (WATT-P), not where the one before ended (WATT-S).
            As in the released code, Adam begins anew for each template of the first round only.
        answer_template: the sentence that answers are given by; None for the mean over all templates.
    """

    def __init__(
        self,
        templates: Templates,
        batch_size: Count = 128,
        steps: Count = 2,
        rounds: Count = 5,
        lr: Rate = 1e-3,
        parallel: bool = False,
        answer_template: Template | None = None,
    ) -> None:
        super().__init__(batch_size, lr)
        self.templates, self.answer_template = templates, answer_template
        self.steps, self.rounds = steps, rounds
        self.parallel = parallel

    def class_features(self, classifier: Classifier) -> Tensor:
        """Return the unit class embeddings `[C, D]` of the sentence for answers, or the mean over templates."""
        if self.answer_template is not None:
            return self.template_features(classifier, [self.answer_template])[0]
        return functional.normalize(self.template_features(classifier, self.templates).mean(dim=0), dim=-1)

    def run(self, tuning: Tuning) -> None:
        """Take all rounds of a batch."""
        optimizer = self.optimizer(tuning)
        choosers = [nearest(classes) for classes in self.template_features(tuning.classifier, self.templates)]
        for number in range(self.rounds):
            start, ends = copies(tuning.tensors), []
            for choose in choosers:
                if self.parallel:
                    restore(tuning.tensors, start)
                    optimizer = optimizer if number else self.optimizer(tuning)
                for _ in range(self.steps):
                    tuning.step(optimizer, choose)
                ends.append(copies(tuning.tensors))
            average = {name: torch.stack([end[name] for end in ends]).mean(dim=0) for name in start}
            restore(tuning.tensors, average)
            tuning.averages.append(average)


def nearest(classes: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return what chooses the nearest of class embeddings `[C, D]` as an image's text, as of `Tuning.step`."""

    def choose(features: Tensor) -> tuple[Tensor, Tensor]:
        labels = (features @ classes.T).argmax(dim=-1)
        return labels[:, None], classes[labels]

    return choose
