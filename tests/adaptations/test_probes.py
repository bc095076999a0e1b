"""Linear probes: what golden records and contracts don't show."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipadapt.errors import UserError
from clipadapt.interfaces import LabelledFeatures
from tests.small import CLASS_NAMES, TASK, TEMPLATES, adaptation, close, task_on

NODE = "method.adaptation."


def learned(seed=0):
    generator = torch.Generator().manual_seed(seed)
    validation = LabelledFeatures(torch.randn(1, 20, 64, generator=generator), torch.arange(20) % 5)
    return SimpleNamespace(
        support=TASK.support, validation=validation, text=torch.randn(5, 64, generator=generator), scale=100.0
    )


def test_every_view_is_a_sample():
    built = adaptation("linear_probe")
    with torch.no_grad():
        built.fit_closed_form(learned())
    image, labels = TASK.support.image.flatten(0, 1).numpy(), np.tile(TASK.support.labels.numpy(), 2)
    reference = LogisticRegression(C=0.316, max_iter=1000).fit(image, labels)
    close(built.logits(TASK.support.image[0], None, 1.0), torch.from_numpy(reference.decision_function(image[:10])))


def test_two_classes_decide_as_scikit_learn_does():
    support = LabelledFeatures(TASK.support.image, torch.arange(10) % 2)
    task = SimpleNamespace(class_names=["cat", "dog"], templates=TEMPLATES, words={}, support=support)
    built = adaptation("linear_probe", task=task)
    built.fit_closed_form(SimpleNamespace(support=support))
    image, labels = (x.numpy() for x in support.flat())
    reference = LogisticRegression(C=0.316, max_iter=1000).fit(image, labels)
    close(built.logits(torch.from_numpy(image), None, 1.0).softmax(1), torch.tensor(reference.predict_proba(image)))


def test_a_class_without_images():
    support = LabelledFeatures(TASK.support.image, torch.arange(10) % 4)
    with pytest.raises(UserError, match="needs images of every class, and the support set has no aeroplane"):
        adaptation("linear_probe").fit_closed_form(SimpleNamespace(support=support))


@torch.no_grad()
def test_the_last_best_epoch_on_validation_is_kept():
    given = learned()
    built, by_hand = (
        adaptation("text_blended_probe", f"{NODE}epochs=60", f"{NODE}select={select}") for select in ("true", "false")
    )
    assert built.capabilities.needs_validation and not by_hand.capabilities.needs_validation
    by_hand.load_state_dict(built.state_dict())
    states, accuracies = [], []
    for _ in by_hand.steps(*given.support.flat(), given.text):
        found = by_hand.logits(given.validation.image[0], given.text, 1.0).argmax(dim=-1)
        accuracies.append((found == given.validation.labels).sum().item())
        states.append({name: value.clone() for name, value in by_hand.state_dict().items()})
    best = max(epoch for epoch, accuracy in enumerate(accuracies) if accuracy == max(accuracies))
    assert best < 59
    built.fit_closed_form(given)
    assert all(torch.equal(value, states[best][name]) for name, value in built.state_dict().items())


@torch.no_grad()
def test_without_selection_the_last_epoch_is_kept_and_validation_isnt_looked_at():
    given = learned()
    del given.validation
    built = adaptation("text_blended_probe", f"{NODE}epochs=25", f"{NODE}select=false")
    other = adaptation("text_blended_probe", f"{NODE}epochs=25", f"{NODE}select=false")
    other.load_state_dict(built.state_dict())
    built.fit_closed_form(given)
    losses = [float(loss) for loss, _ in other.steps(*given.support.flat(), given.text)]
    assert len(losses) == 25 and losses[-1] < losses[0]
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in built.state_dict().items())


def test_it_is_built_from_nothing_and_loaded():
    built = adaptation("text_blended_probe")
    nothing = LabelledFeatures(torch.zeros(2, 10, 64), torch.zeros(10, dtype=torch.long))
    again = adaptation("text_blended_probe", task=SimpleNamespace(**{**vars(task_on()), "support": nothing}))
    again.load_state_dict(built.state_dict())
    assert again.capabilities.fixed_classes == tuple(CLASS_NAMES)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in built.state_dict().items())
