import gc
import weakref

import psutil
import torch

from clipadapt.adaptations.context import Context
from clipadapt.engine import memory
from clipadapt.engine.preparing import prepare_run
from clipadapt.runs.plan import plan
from tests.engine.tasks import CONTEXT, distance, fit, learned, prepare, settings, task

CPU = torch.device("cpu")
NAMES = [
    f"{colour} {thing}"
    for colour in ("red", "green", "blue", "yellow", "small")
    for thing in ("circle", "square", "star", "heart", "cross", "small red circle")
]


def test_saved_bytes_count_what_autograd_keeps_once():
    x = torch.ones(10, 100, requires_grad=True)
    assert memory.saved_bytes(lambda: x.exp().exp()) == 2 * 4000, "the two results"
    assert memory.saved_bytes(lambda: x + 1) == 0
    y = torch.ones(10, 100)
    assert memory.saved_bytes(lambda: x * y + x * y) == 4000
    assert memory.saved_bytes(lambda: y.exp()) == 0


def test_measuring_leaves_nothing_behind():
    x, results = torch.ones(10, requires_grad=True), []

    def compute():
        result = x.exp()  # its backward pass needs the result itself
        results.append(weakref.ref(result))
        return result

    assert memory.saved_bytes(compute) == 40
    gc.collect()
    assert results[0]() is None


def test_the_peak_of_a_process_is_in_megabytes():
    now = psutil.Process().memory_info().rss / 1e6
    assert 0.9 * now < memory.peak_memory_mb(CPU) < 100 * now


def test_rows_follow_the_budget(clip):
    given = task()
    given.class_names[:] = NAMES
    context = Context(clip, given, n_ctx=4)
    few, many = (memory.max_rows(clip, context, NAMES, bytes_, 4, 64) for bytes_ in (1e7, 1e8))
    assert 9.9 < many / few < 10.1
    prompts = clip.tokenize_in_chunks(context.prompts(NAMES))
    saved = memory.saved_bytes(lambda: prompts.run(clip.text, context.edits("text")))
    weights = sum(weight.nbytes for weight in clip.model.transformer.parameters())
    estimate = prompts.rows * 1e8 / (many * memory.MARGIN)
    assert abs(estimate / (saved - weights) - 1) < 0.35
    assert memory.max_rows(clip, context, NAMES[:2], 1e8, 4, 64) > many, "too few to be measured"


def test_chunks_of_classes_change_nothing(clip):
    given = task(images=30)
    given.class_names[:] = NAMES
    whole = prepare(clip, given, CONTEXT, memory=10)
    small = prepare(clip, given, CONTEXT, memory=0.002)
    assert whole.head.text_chunks == 1 < small.head.text_chunks
    assert f"in {small.head.text_chunks} chunks" in plan(small).every_step
    expected, _ = fit(whole)
    assert distance(fit(small)[0], expected) < 1e-6


def test_recomputing_the_image_tower_changes_nothing(clip):
    from tests.engine.test_fit import MAKERS

    assert (
        distance(
            learned(clip, make=MAKERS["pixels"]), learned(clip, make=MAKERS["pixels"], activation_checkpointing=True)
        )
        == 0
    )


def test_recomputing_keeps_less(clip):
    from tests.engine.test_fit import MAKERS

    pixels = torch.randn(4, 3, 32, 32)
    saved = []
    for activation_checkpointing in (False, True):
        run = prepare_run(clip, task(), MAKERS["pixels"], settings(activation_checkpointing=activation_checkpointing))
        saved.append(memory.saved_bytes(lambda run=run: run.head.encode_image(pixels)))
    assert saved[1] < saved[0] / 3
