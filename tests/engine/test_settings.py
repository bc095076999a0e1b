import math
from types import SimpleNamespace

import pytest
import torch

from clipadapt.engine import Settings
from clipadapt.engine.checks import check_images
from clipadapt.engine.schedules import constant, cosine, shortened
from clipadapt.errors import UserError
from clipadapt.runs.methods import adaptation_maker
from tests.small import composed, golden, task_on


def optimizer(rate=0.002):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(schedule, epochs):
    found = []
    for _ in range(epochs):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


def test_cosine_is_coops():
    expected = [1e-5] + [0.001 * (1 + math.cos(math.pi * (epoch - 1) / 50)) for epoch in range(1, 50)]
    found = rates(cosine(optimizer(), 50), 50)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[1] == 0.002
    assert found[-1] > 0


def test_cosine_without_warmup_and_without_a_rate():
    assert rates(cosine(optimizer(), 2, warmup_epochs=0), 2) == pytest.approx([0.002, 0.001])
    assert rates(cosine(optimizer(0.0), 2), 2) == [0, 0]


def test_constant():
    assert rates(constant(optimizer(), 3), 3) == [0.002] * 3


def test_schedule_goes_on_where_it_stood():
    whole = rates(cosine(optimizer(), 10), 10)
    first = cosine(optimizer(), 10)
    begun = rates(first, 4)
    resumed = cosine(optimizer(), 10)
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    resumed.load_state_dict(first.state_dict())
    assert begun + rates(resumed, 6) == whole


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (3, 100), (4, 100), (7, 100), (8, 200), (99, 200)])
def test_epochs_by_shots(shots, epochs):
    table = {1: 50, 2: 100, 4: 100, 8: 200}
    assert Settings(epochs=table, optimizer=optimizer, schedule=cosine).epochs_for(shots) == epochs


@pytest.mark.parametrize(
    ("most", "steps", "epochs"), [(None, 5, 200), (150, 5, 30), (149, 5, 29), (150, 576, 1), (5000, 5, 200)]
)
def test_epochs_within_a_number_of_steps(most, steps, epochs):
    settings = Settings(epochs=200, optimizer=optimizer, schedule=cosine, max_steps=most)
    assert settings.epochs_within(16, steps) == epochs
    assert (settings.schedule_note is None) == (most is None)


def test_no_epochs_stay_none():
    assert Settings(epochs=0, optimizer=optimizer, schedule=cosine, max_steps=150).epochs_within(16, 5) == 0


def test_a_shortened_schedule_is_gone_through_as_a_whole():
    whole = rates(cosine(optimizer(), 200), 200)
    assert rates(shortened(cosine, optimizer(), 200, 200), 200) == whole
    assert rates(shortened(cosine, optimizer(), 200, 40), 40) == pytest.approx(whole[2::5])
    assert rates(shortened(cosine, optimizer(), 10, 1), 1) == pytest.approx(rates(cosine(optimizer(), 10), 10)[5:6])
    assert rates(shortened(constant, optimizer(0.0), 10, 3), 3) == [0, 0, 0]


def test_epochs_below_the_table_and_without_one():
    assert Settings(epochs={4: 7, 8: 9}, optimizer=optimizer, schedule=cosine).epochs_for(1) == 7
    assert Settings(epochs=3, optimizer=optimizer, schedule=cosine).epochs_for(16) == 3


@pytest.mark.parametrize(
    "method, switch",
    [
        ("tip_adapter", "search"),
        ("tip_adapter_f", "search"),
        ("lp_plus_plus", "select"),
        ("gda_clip", "search"),
        ("transclip_few_shot", "search"),
        ("ape", "search"),
        ("ape_t", "search"),
        ("tip_x", "search"),
        ("calip", "search"),
    ],
)
def test_a_search_without_validation_images_names_its_way_out(method, switch):
    key = f"method.adaptation.{switch}"
    settings = Settings(epochs=1, optimizer=optimizer, schedule=cosine)
    task = SimpleNamespace(name="pets", validation=[], shots=2, check_has_images=lambda: None)
    found = adaptation_maker(composed(f"method={method}"))(golden(), task_on())
    with pytest.raises(UserError, match=rf"'pets' has no images left for one: take fewer .*, or set {key}=false, wh"):
        check_images(found, task, settings, None)
    without = adaptation_maker(composed(f"method={method}", f"{key}=false"))(golden(), task_on())
    check_images(without, task, settings, None)
