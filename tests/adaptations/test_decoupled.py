"""A second head for the learned classes: who answers for which classes, its learning rate, its objective."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from clipadapt.adaptations import ZeroShot
from clipadapt.engine.checks import check_text_logits
from clipadapt.engine.schedules import cosine, shortened
from clipadapt.engine.settings import make_optimizer
from clipadapt.errors import UserError
from clipadapt.objectives import DecoupledCrossEntropy
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, TASK, adaptation, close, golden, images

HEAD = "+adaptation@method.also.head=decoupled_head"


@torch.no_grad()
def test_other_classes_are_answered_by_the_cosines():
    classifier = Classifier(golden(), adaptation("decoupled_head"), CLASS_NAMES)
    plain = Classifier(golden(), ZeroShot(golden(), TASK), CLASS_NAMES)
    assert (classifier(images(2)) - plain(images(2))).abs().max() > 1
    both = [*CLASS_NAMES[:2], "owl"]
    text = classifier.for_classes(both).class_embeddings()
    features = golden().image.run(images(2))
    expected = golden().scale * functional.normalize(features, dim=-1) @ functional.normalize(text, dim=-1).T
    close(classifier.for_classes(both)(images(2)), expected)


def test_a_context_of_each_class_still_serves_no_others():
    built = adaptation("context", "method.adaptation.class_specific=true", HEAD)
    with pytest.raises(UserError, match="learns something for each of its classes"):
        Classifier(golden(), built, ["owl", "dog"])


@pytest.mark.parametrize("schedule", [cosine, partial(shortened, cosine, taken=7)])
def test_its_own_learning_rate(schedule):
    built = adaptation("context", HEAD, "method.also.head.rate_factor=4")
    optimizer = make_optimizer(partial(torch.optim.SGD, lr=0.1), built, [*built.parameters()])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.4])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 6]
    made, rates = schedule(optimizer, epochs=8), []
    for _ in range(3):
        rates.append(made.get_last_lr())
        optimizer.step()
        made.step()
    assert rates[0] == pytest.approx([1e-5, 1e-5])
    assert rates[2][1] == pytest.approx(4 * rates[2][0]) and rates[2][0] < 0.1


def test_the_classifier_also_learns_from_texts_that_an_image_shifts():
    classifier = Classifier(golden(), adaptation("conditional_context", HEAD), CLASS_NAMES)
    labels = torch.tensor([3, 1])
    output = classifier.output(images(2)).shifted(torch.arange(5.0))
    losses = DecoupledCrossEntropy(golden(), TASK)(output, labels)
    texts = classifier.adaptation.text_logits(output.text)[[0, 1], labels] + torch.arange(5.0)
    (_, cosines), (weight, others) = output.heads()
    expected = functional.cross_entropy(torch.cat([texts, others]), torch.tensor([3, 1, 3, 1]))
    torch.testing.assert_close(losses["classifier"], weight * expected)
    torch.testing.assert_close(losses["cross_entropy"], (1 - weight) * functional.cross_entropy(cosines, labels))


def test_an_objective_without_its_head():
    with pytest.raises(UserError, match=r"needs a head that classifies texts, too: add \+adaptation@method.also.head"):
        check_text_logits(DecoupledCrossEntropy, adaptation("context"), golden(), 5)
    check_text_logits(DecoupledCrossEntropy, adaptation("context", HEAD), golden(), 5)
