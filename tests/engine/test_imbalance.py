"""What is done about classes of unequal size in a fit by gradient."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

import clipadapt
from clipadapt.engine.batches import BatchSampler
from clipadapt.engine.imbalance import Imbalance, unequal
from clipadapt.engine.learner import Learner
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy

LABELS = [0] * 6 + [1] * 2  # a third class has none


def logits():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class FixedHead(torch.nn.Module):
    """A head whose logits never change."""

    clip, adaptation = SimpleNamespace(device="cpu"), SimpleNamespace(squared_distance=None)

    def output(self, x, start):
        return Output(logits(), logits(), logits(), logits, lambda features: features)


class Seen(CrossEntropy):
    """Cross entropy that keeps what it was given."""

    def forward(self, output, labels):
        self.output = output
        return super().forward(output, labels)


def learn(choice, labels, tau=1.0):
    """The loss, the logits that are scored, and the outputs that the losses saw."""
    learner = Learner(FixedHead(), Seen(None, SimpleNamespace()), Imbalance(choice, LABELS, 3, tau))
    losses, scored = learner(None, labels, "pixels")
    return losses["cross_entropy"], scored, learner.objective.output


def test_weights_are_the_inverse_shares_and_one_on_average():
    labels = torch.tensor([0, 1, 1, 0])
    single = functional.cross_entropy(logits(), labels, reduction="none")
    weights = torch.tensor([8 / 12, 8 / 4])
    loss, scored, _ = learn("class_weights", labels)
    torch.testing.assert_close(loss, (single * weights[labels]).mean())
    assert weights[torch.tensor(LABELS)].mean() == pytest.approx(1) and torch.equal(scored, logits())


def test_logits_are_adjusted_by_the_log_of_the_shares():
    labels = torch.tensor([0, 1, 1, 0])
    shift = torch.tensor([0.75, 0.25, torch.finfo(torch.float32).tiny]).log()
    loss, scored, seen = learn("logit_adjustment", labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits() + shift, labels))
    torch.testing.assert_close(seen.classify(logits()), logits() + shift)
    assert torch.equal(scored, logits())


def test_the_loss_with_tau_is_that_of_pairs_of_classes():
    """As Menon et al. write it: log(1 + the sum over other classes of (share' / share)^tau exp(logit' - logit))."""
    label, shares = 1, [0.75, 0.25]
    loss, _, _ = learn("logit_adjustment", torch.tensor([label] * 4), tau=0.5)
    known = logits()[:, :2].double()
    pairs = (shares[0] / shares[1]) ** 0.5 * (known[:, 0] - known[:, 1]).exp()
    assert loss.item() == pytest.approx(pairs.log1p().mean().item(), abs=1e-5)  # the third class has no share


def test_a_tau_that_nothing_reads(clip):
    task = clipadapt.load_task("digits", shots=1)
    with pytest.raises(clipadapt.UserError, match=r"acts with method\.imbalance=logit_adjustment alone: set both"):
        clipadapt.finetune(clip, task, "coop", ["engine.logit_adjustment_tau=2"], workers=0, cpu=True, cache=None)


def test_balanced_batches_have_every_class_as_often():
    weights = Imbalance("balanced_sampling", LABELS, 3).sampling_weights()
    sampler = BatchSampler(8, 4, 1, seed=0, weights=weights)
    drawn = [LABELS[i] for epoch in range(200) for (part,) in sampler.epoch(epoch) for i in part.indices]
    assert len(drawn) == 1600 and abs(drawn.count(1) / 1600 - 0.5) < 4 * math.sqrt(0.25 / 1600)
    assert [*sampler.epoch(3)] == [*sampler.epoch(3)] != [*sampler.epoch(4)]
    assert Imbalance("class_weights", LABELS, 3).sampling_weights() is None


def test_unequal_classes_are_noted():
    assert unequal(LABELS) == "2 to 6 images a class"
    assert unequal([0, 0, 0, 1, 1]) is None and unequal([]) is None and unequal([0.5, 0.5, 0.1]) is None


@pytest.mark.parametrize(
    "choice",
    [
        "logit_adjustment",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("balanced_sampling", "class_weights")),
    ],
)
def test_a_run_with_each(clip, choice):
    task = clipadapt.load_task("drawn", shots=2, train_per_class=4, validation_per_class=1, test_images=12)
    kept = [i for i, label in enumerate(task.support.labels) if label or i == task.support.labels.index(0)]
    task = replace(task, support=task.support.select(kept))
    learned = [
        clipadapt.finetune(
            clip, task, "clip_adapter", overrides, max_steps=2, batch_size=8, workers=0, cpu=True, cache=None
        )
        for overrides in ([], [f"method.imbalance={choice}"])
    ]
    plain, treated = (result.tensors for result in learned)
    assert any(not torch.equal(value, treated[name]) for name, value in plain.items())
    words = [result.record["plan"]["every_step"] for result in learned]
    assert "1 to 2 images a class, as they are" in words[0] and choice.replace("_", " ") in words[1]


def test_nothing_to_act_on(clip):
    task = clipadapt.load_task("digits", shots=1)
    with pytest.raises(
        clipadapt.UserError, match="acts on what is learned by gradient, and this method learns nothing"
    ):
        clipadapt.finetune(clip, task, "zero_shot", ["method.imbalance=class_weights"], workers=0, cpu=True, cache=None)
