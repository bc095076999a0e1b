"""The plan of a run: shown before it starts, and saved with its result."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.config.composing import read_yaml
from clipadapt.config.tree import options
from clipadapt.engine.imbalance import unequal
from clipadapt.engine.run import Run
from clipadapt.test_time.base import TestTimeMethod


@dataclass(frozen=True)
class Plan:
    """The plan of a run: what is computed once, and what at every step.

    Attributes:
        image_cut: the point of the image tower where the first edit is; what lies before it is computed once.
        text_cut: the same of the text tower.
        kept: which features of the images are cached, where, and their size.
        every_step: what every step computes; then what happens at test time.
        steps: how many steps there are.
        schedule_note: how the run's schedule differs from its paper's; None if it doesn't.
        trained: learned tensors by name, with their shapes.
        parameters: how many numbers are learned, by gradient or without.
        share: of the backbone's parameters.
    """

    image_cut: str
    text_cut: str
    kept: str
    every_step: str
    steps: int
    schedule_note: str | None
    trained: dict[str, list[int]]
    parameters: int
    share: float


def plan(run: Run, teachers: Sequence[DualEncoder] = ()) -> Plan:
    """Return the plan of a prepared run; `teachers` are its objective's."""
    head, adaptation = run.head, run.head.adaptation
    names = [f"of teacher {one.source['name']}" for one in teachers]
    stored, again = (names, []) if run.task.views is not None else ([], names)
    count = sum(value.numel() for value in adaptation.parameters()) + adaptation.capabilities.num_fitted_values
    kept = [run.loader.describe(head, run.task, run.placement), *(f"features {name}" for name in stored)]
    kept += [_faster_setting(run)] if run.task.views is None and run.epochs and head.image_cut != "pixels" else []
    step = _list_step_parts(run, again) if run.epochs else ["nothing"]
    return Plan(
        image_cut=head.image_cut,
        text_cut=head.text_cut,
        kept="; ".join(kept),
        every_step="; ".join([*step, *_list_test_parts(run.test_time)]),
        steps=run.epochs * len(run.batches()),
        schedule_note=run.settings.schedule_note,
        trained={name: list(value.shape) for name, value in adaptation.named_parameters()},
        parameters=count,
        share=count / run.clip.parameters,
    )


def _faster_setting(run: Run) -> str:
    """Return how many views are encoded with fresh views every epoch, and how few with stored ones."""
    images, stored = len(run.task.support), read_yaml(options("task")["stored_views"])["views"]
    fresh, kept = (f"{count * images:,}" for count in (run.epochs, stored))
    return f"in all {fresh} views go up to {run.head.image_cut}, and {kept} would with task.views={stored}"


def _list_step_parts(run: Run, teachers: Sequence[str]) -> list[str]:
    """List what every training step computes."""
    head = run.head
    parts = [f"image tower {name}, without gradients" for name in teachers]
    if not run.placement.anywhere:
        parts.append(f"image tower up to {head.image_cut}, without gradients")
    if head.image_cut != "features":
        parts.append(f"image tower from {head.image_cut}")
    if head.text_cut != "features":
        chunks = head.text_chunks
        again = f", in {chunks} chunks computed again for their gradients" if chunks > 1 else ""
        parts.append(f"text tower from {head.text_cut}{again}")
    return [*parts, *_list_balance(run), "logits"]


def _list_balance(run: Run) -> list[str]:
    """Say how classes of unequal size are treated, or by which setting they could be; nothing if they are equal."""
    if run.imbalance is not None:
        return [run.imbalance.choice.replace("_", " ")]
    sizes = unequal(run.task.support.labels)
    return [] if sizes is None else [f"{sizes}, as they are (method.imbalance=logit_adjustment evens them out)"]


def _list_test_parts(test_time: TestTimeMethod | None) -> list[str]:
    """List what happens at test time; nothing without a test-time method."""
    if test_time is None:
        return []
    if test_time.adapts_to == "set":
        return ["at the test all images together"]
    if test_time.adapts_to == "batch":
        return [f"at the test batches of {test_time.images} images, adapted to together"]
    views = "1 view" if test_time.views == 1 else f"{test_time.views} views"
    return [f"at the test {views} of each image, {test_time.images} images at a time"]
