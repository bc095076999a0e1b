import copy
import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from clipadapt.adaptations import Composed, ZeroShot
from clipadapt.adaptations.decoupled import DecoupledHead
from clipadapt.adaptations.visual import PixelFrame
from clipadapt.backbone.open_clip import CLIP
from clipadapt.engine.batches import BatchSampler
from clipadapt.engine.fit import TrainState
from clipadapt.engine.preparing import prepare_run
from clipadapt.engine.schedules import constant
from clipadapt.errors import DivergenceError, UserError
from clipadapt.features.encoder import Encoder
from clipadapt.objectives import CrossEntropy
from clipadapt.objectives.base import GradientRule
from clipadapt.runs.plan import plan
from tests.engine.tasks import CONTEXT, FEATURES, SGD, distance, fit, learned, prepare, same, settings, task

MAKERS = {
    "context": CONTEXT,
    "features": FEATURES,
    "pixels": partial(PixelFrame, size=4),
}


def two_rates(clip, task):
    """Two parts, of which one learns faster."""
    return Composed(clip, task, {"text": CONTEXT(clip, task), "head": DecoupledHead(clip, task)})


class Failing(CrossEntropy):
    """NaN at one call."""

    def __init__(self, call):
        super().__init__(None, None)
        self.left = call

    def forward(self, output, labels):
        self.left -= 1
        return {
            name: loss * (math.nan if self.left == 0 else 1) for name, loss in super().forward(output, labels).items()
        }


class Large(ZeroShot):
    """Learns a tensor of 32 MB, beside which all else is small."""

    def __init__(self, clip, task):
        super().__init__(clip, task)
        self.weight = nn.Parameter(torch.zeros(1 << 23))

    def class_embeddings(self, text):
        return super().class_embeddings(text) + self.weight[0]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_accumulation_changes_nothing(clip, make):
    whole = learned(clip, make=make)
    assert distance(whole, learned(clip, make=make, epochs=0)) > 1e-6
    for gradient_accumulation_steps in (2, 3, 9):
        assert distance(whole, learned(clip, make=make, gradient_accumulation_steps=gradient_accumulation_steps)) < 1e-6


class Contrastive(CrossEntropy):
    """Compares the images of a batch with each other."""

    needs_whole_batch = True


def test_an_objective_of_whole_batches_is_not_split(clip, monkeypatch):
    fit(prepare(clip), Contrastive(clip, None))
    with pytest.raises(UserError, match=r"Contrastive compares.*: use engine\.gradient_accumulation_steps=1"):
        fit(prepare(clip, gradient_accumulation_steps=2), Contrastive(clip, None))
    monkeypatch.setattr(Encoder, "compute", lambda *given: pytest.fail("an image is encoded"))
    make, several = pytest.fail, settings(gradient_accumulation_steps=2)
    with pytest.raises(UserError, match=r"\(gradient accumulation steps: 2, processes: 1\)"):
        prepare_run(clip, task(), make, several, objective=Contrastive)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(UserError, match=r"\(gradient accumulation steps: 1, processes: 2\): .* one process"):
        prepare_run(clip, task(), make, settings(), objective=Contrastive)


def test_an_uneven_last_batch_counts_each_image_once(clip):
    changes = {"epochs": 1, "batch_size": 5, "optimizer": partial(torch.optim.SGD, lr=0.1), "schedule": constant}
    found, done = fit(prepare(clip, **changes))
    plain = prepare(clip, **changes)
    pixels = torch.stack([clip.transform(image) for image in plain.task.support.images])
    labels = torch.tensor(plain.task.support.labels)
    optimizer = changes["optimizer"](plain.head.adaptation.parameters())
    steps = [part.indices for (part,) in BatchSampler(7, 5, 1, plain.task.seed).epoch(0)]
    assert [len(step) for step in steps] == [5, 2]
    total = 0.0
    for step in steps:
        loss = functional.cross_entropy(plain.head(pixels[step]), labels[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += len(step) * loss.item()
    assert distance(found, plain.head.adaptation.state_dict()) < 1e-5
    assert done.history[0]["loss"] == pytest.approx(total / 7, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [MAKERS["context"], MAKERS["pixels"]], ids=["context", "pixels"])
def test_compiled_it_learns_the_same(clip, make):
    torch.compiler.reset()
    assert distance(learned(clip, make=make, compile=True), learned(clip, make=make)) < 1e-5


def test_history(clip):
    _, done = fit(prepare(clip))
    assert [row["epoch"] for row in done.history] == [1, 2, 3]
    assert done.history[0]["lr"] == pytest.approx(1e-5)
    assert done.history[1]["lr"] == 0.002
    assert all(row["loss"] > 0 and 0 <= row["accuracy"] <= 1 for row in done.history)
    assert done.epoch == 3


def test_the_same_seed_gives_the_same_tensors(clip):
    assert same(learned(clip, task(views=None)), learned(clip, task(views=None)))


def test_the_backbone_stays_as_it_was(clip):
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    learned(clip, make=MAKERS["pixels"])
    assert same(before, clip.model.state_dict())
    assert all(weight.grad is None for weight in clip.model.parameters())


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.AdamW, lr=0.01)], ids=["sgd", "adamw"])
@pytest.mark.parametrize("make", [MAKERS["context"], MAKERS["pixels"], two_rates], ids=["context", "pixels", "rates"])
def test_stopped_after_any_epoch_and_gone_on_with(clip, make, optimizer):
    given = task(views=None)
    states = []
    changes = {"optimizer": optimizer}
    whole, done = fit(
        prepare(clip, given, make, **changes), after_epoch=lambda progress: states.append(copy.deepcopy(vars(progress)))
    )
    for epoch in range(3):
        state = states[epoch] | {"history": done.history[: epoch + 1]}
        resumed, again = fit(prepare(clip, given, make, **changes), progress=TrainState(**state))
        assert same(whole, resumed)
        assert again.history == done.history


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nan_stops_names_the_step_and_keeps_the_last_good_state(precision):
    clip = CLIP.load("tiny", "embedded")
    good = learned(clip, make=MAKERS["context"], epochs=2, schedule=constant, precision=precision)
    run = prepare(clip, epochs=4, schedule=constant, precision=precision)
    progress = TrainState()
    with pytest.raises(
        DivergenceError, match=r"nan at step 6 \(epoch 3\); what was learned up to epoch 2 is kept"
    ) as caught:
        fit(run, Failing(call=6), progress)
    assert ("fp32" in str(caught.value)) == (precision != "fp32")
    assert same(good, run.head.adaptation.state_dict())
    assert same(good, progress.state["adaptation"])
    assert all(value["momentum_buffer"].isfinite().all() for value in progress.state["optimizer"]["state"].values())
    assert progress.epoch == 2 and len(progress.history) == 2


def test_nan_in_the_first_epoch_leaves_the_start(clip):
    run = prepare(clip, optimizer=partial(torch.optim.SGD, lr=1e38), schedule=constant)
    start = {name: value.clone() for name, value in run.head.adaptation.state_dict().items()}
    with pytest.raises(DivergenceError, match=r"at step \d+ \(epoch 1\)"):
        fit(run)
    assert same(start, run.head.adaptation.state_dict())


def test_a_last_step_into_infinity_is_noticed(clip):
    with pytest.raises(DivergenceError, match=r"what is learned became infinite at step 1 \(epoch 1\)"):
        fit(prepare(clip, epochs=1, batch_size=7, optimizer=partial(torch.optim.SGD, lr=math.inf), schedule=constant))


def test_a_rule_on_gradients_does_not_go_with_scaled_losses(clip):
    run, rule = prepare(clip), GradientRule()
    run.settings = replace(run.settings, precision="fp16")
    with pytest.raises(UserError, match=r"doesn't go with fp16: use engine\.precision=bf16 or fp32"):
        run.fit(CrossEntropy(clip, run.known), None, TrainState(), lambda progress: None, rule)
    run.settings = replace(run.settings, precision="bf16")
    run.fit(CrossEntropy(clip, run.known), None, TrainState(), lambda progress: None, rule)


def test_nothing_to_learn_and_no_epochs(clip):
    assert fit(prepare(clip, make=ZeroShot)) == ({}, TrainState())
    assert fit(prepare(clip, epochs=0))[1] == TrainState()


def test_a_rounded_backbone_is_refused():
    clip = CLIP.load("tiny", "embedded")
    prepare(clip, precision="bf16")
    prepare(clip, precision="bf16")
    with pytest.raises(UserError, match="load it again for fp32"):
        prepare(clip)


@pytest.mark.parametrize(("most", "epochs", "steps"), [(5, 2, 4), (1, 1, 1), (100, 3, 6)])
def test_a_fit_ends_after_so_many_steps(clip, most, epochs, steps):
    run = prepare(clip, max_steps=most)
    _, done = fit(run)
    assert done.epoch == run.epochs == epochs
    assert plan(run).steps == steps <= most
    assert plan(run).schedule_note == f"quick schedule: at most {most} steps"


def test_a_limit_that_is_not_reached_changes_nothing(clip):
    assert same(learned(clip), learned(clip, max_steps=6))


def test_there_is_one_copy_of_the_state_at_most(clip, tmp_path):
    run = prepare(clip, make=Large, epochs=4, optimizer=partial(torch.optim.AdamW, fused=True))
    kept = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        fit(run, after_epoch=lambda progress: kept.append(progress.state["adaptation"]["weight"].data_ptr()))
    trace.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    totals = [event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"]
    peak = max(totals) / run.head.adaptation.weight.nbytes
    # beside the weight: two of the optimiser, three of the copy, a gradient as it is made; a second copy makes it 8
    assert 5 < peak < 7.5
    assert len(kept) == 4 and len(set(kept)) == 1
