"""Fits in phases, one after another: 2SFS has two."""

import copy
from functools import partial

import pytest
import torch

from clipadapt.adaptations import Composed
from clipadapt.adaptations.context import Context
from clipadapt.adaptations.heads import LateClassWeights
from clipadapt.engine.phases import Phase, list_phases
from clipadapt.errors import UserError
from clipadapt.objectives import CrossEntropy, GaussianAverage
from clipadapt.runs.methods import adaptation_maker
from tests.engine.tasks import distance, fit, prepare, same
from tests.small import TASK, TEMPLATES, composed, golden

PHASES = {"epochs": 5, "phases": [0.6, 0.4], "optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9)}
WEIGHT, CONTEXT = "parts.weights.weight", "parts.adaptation.context"


def two_stages(clip, task):
    parts = {"adaptation": Context(clip, task, n_ctx=4), "weights": LateClassWeights(clip, task)}
    return Composed(clip, task, parts)


def fitted(clip, progress=None, **changes):
    """What was learned, and the states after every epoch."""
    states = []
    run = prepare(clip, make=two_stages, **PHASES | changes)
    found, _ = fit(run, progress=progress, after_epoch=lambda state: states.append(copy.deepcopy(state)))
    assert all(parameter.requires_grad for parameter in run.head.adaptation.parameters())
    return found, states


def test_epochs_are_shared_and_rounded_down():
    assert list_phases(None, 5, 50) == [Phase(0, 0, 5, 50)]
    assert list_phases([0.6, 0.4], 5, 96) == [Phase(0, 0, 3, 57), Phase(1, 3, 5, 39)]
    assert list_phases([0.3, 0.3, 0.4], 10, 10)[1] == Phase(1, 3, 6, 3)
    assert list_phases([0.6, 0.4], 1, 96) == [Phase(0, 0, 0, 57), Phase(1, 0, 1, 39)]


def test_each_phase_trains_its_own_and_the_second_starts_at_the_text_of_the_first(clip):
    found, states = fitted(clip)
    learned = [state.state["adaptation"] for state in states]
    assert len({learned[epoch][CONTEXT].sum().item() for epoch in range(3)}) == 3
    assert all(torch.equal(learned[epoch][CONTEXT], learned[2][CONTEXT]) for epoch in (3, 4))
    assert not any(learned[epoch][WEIGHT].any() for epoch in range(3)) and learned[3][WEIGHT].any()
    run = prepare(clip, make=two_stages, **PHASES)
    run.head.adaptation.load_state_dict(learned[2])
    with torch.no_grad():
        text = run.head.class_embeddings()
        assert 0 < (text - learned[3][WEIGHT]).abs().max() < 0.01  # after an epoch at the rate of the warm-up
        run.head.adaptation.load_state_dict(found)
        assert torch.equal(run.head.class_embeddings(), found[WEIGHT])
        other = run.head.for_classes(["square", "owl"]).class_embeddings()
        assert torch.equal(other[0], found[WEIGHT][1]) and other[1].norm().item() == pytest.approx(1)
    assert [row["lr"] for row in states[-1].history] == pytest.approx([1e-5, 0.01, 0.0075, 1e-5, 0.01])


@pytest.mark.parametrize("epoch", [2, 3, 4, 5])
def test_a_fit_goes_on_within_a_phase_and_between_two(clip, epoch):
    whole, states = fitted(clip)
    again, _ = fitted(clip, progress=states[epoch - 1])
    assert same(again, whole)


def test_a_fit_begins_anew_with_what_was_learned(clip):
    """As `from` lets it: the weights of the fit before don't count as text."""
    run = prepare(clip, make=two_stages, **PHASES)
    first, _ = fit(run)
    second, _ = fit(run)
    assert distance({"": first[CONTEXT]}, {"": second[CONTEXT]}) > 1e-6
    run.head.adaptation.load_state_dict(second)
    run.head.adaptation.begin_phase(0, None)
    assert not torch.equal(run.head.class_embeddings(), second[WEIGHT])


def test_a_single_epoch_is_of_the_last_phase(clip):
    found, _ = fitted(clip, epochs=1)
    assert found[WEIGHT].any() and found["parts.weights.used"]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        (None, "number of phases is 2: set engine.phases to 2 shares of the epochs that add up to 1, and not to None"),
        ([0.2, 0.2, 0.6], "number of phases is 2: set engine.phases to 2 shares"),
        ([0.6, 0.5], r"the shares of engine.phases=\[0.6, 0.5\] must add up to 1, and they make 1.1"),
    ],
)
def test_shares_that_do_not_fit(clip, shares, words):
    with pytest.raises(UserError, match=words):
        prepare(clip, make=two_stages, phases=shares)


def test_phases_of_a_method_with_one(clip):
    with pytest.raises(UserError, match=r"number of phases is 1: set engine.phases to null, and not to \[0.6, 0.4\]"):
        prepare(clip, phases=[0.6, 0.4])


def test_no_average_over_several_phases(clip):
    run = prepare(clip, make=two_stages, **PHASES)
    with pytest.raises(UserError, match="can't be averaged over the epochs of several phases: set method"):
        run.fit(CrossEntropy(clip, None), None, None, print, average=GaussianAverage(1.0, 1.0))


def test_the_first_of_several_templates():
    """As in 2SFS's released code; `text=zero_shot` has them all."""
    assert len(TEMPLATES) > 1
    for more, templates in ((), TEMPLATES[:1]), (("adaptation@method.also.text=zero_shot",), TEMPLATES):
        made = adaptation_maker(composed("method=two_stage_few_shot", *more))(golden(), TASK)
        assert made.prompts(["owl"]) == [[template.replace("{}", "owl") for template in templates]]
