"""Prompts as training samples."""

from types import SimpleNamespace

import torch
from torch.nn import functional

from clipadapt.objectives import CrossModal
from tests.small import TASK, golden


def test_every_prompt_comes_before_any_comes_again():
    torch.manual_seed(0)
    objective = CrossModal(golden(), TASK)
    assert objective.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(objective.draw(4).unique()) == 4
    drawn = objective.draw(25)
    assert [len(part.unique()) for part in drawn.split(10)] == [10, 10, 5]
    assert not torch.equal(drawn[:10], drawn[10:20])


def test_one_mean_over_images_and_prompts():
    objective = CrossModal(golden(), TASK)
    drawn = torch.tensor([9, 0])
    objective.draw = lambda count: drawn
    images, texts, labels = torch.randn(2, 5), torch.randn(2, 5), torch.tensor([3, 1])
    seen = []
    output = SimpleNamespace(
        logits=images, classify=lambda features: seen.append(features) or texts, class_weights=None
    )
    found = objective(output, labels)["cross_entropy"]
    each = torch.cat(
        [
            functional.cross_entropy(images, labels, reduction="none"),
            functional.cross_entropy(texts, torch.tensor([4, 0]), reduction="none"),
        ]
    )
    torch.testing.assert_close(found, each.mean())
    torch.testing.assert_close(seen[0], objective.text[drawn])
