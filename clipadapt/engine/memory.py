"""Estimate of how many rows of the text tower fit in memory, and measurement of a run's peak memory."""

import contextlib
import resource
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.test_time.base import TestTimeMethod

MARGIN = 1.25
"""Factor on the saved activations for a backward pass, which also holds the gradients of the current block."""
WIDTHS = 14
"""Channels per row, in widths of the tower, that a block holds at once without gradients: its input, queries, keys,
values, attention output, and the MLP's hidden layer before and after its activation."""
ATTENDED_AGAIN = 3
"""Channels per row and block, in widths of the tower, of checkpointed attention's inputs: queries, keys and values,
which autograd's hooks don't see."""
RESET_PEAK = Path("/proc/self/clear_refs")
"""File of Linux that resets this process's peak memory when a 5 is written to it."""
PROBED = 24
"""Number of classes at which activations are measured; the difference to a third of them excludes the weights."""


def max_rows(
    clip: DualEncoder, adaptation: Adaptation, class_names: Sequence[str], memory: float, images: int, tested: int
) -> int | None:
    """Return how many rows of the text tower fit in memory; None if its architecture isn't known.

    Args:
        clip: the backbone.
        adaptation: the adaptation that is trained.
        class_names: the classes.
        memory: available memory in bytes.
        images: images of a training step; each needs its own text rows if the adaptation is conditional.
        tested: images of a test batch, which needs no gradients.
    """
    if clip.text_width is None:
        return None
    plain = WIDTHS * clip.text_width * clip.dtype.itemsize
    names = [*chain.from_iterable(adaptation.find_names(class_names))]
    followed = MARGIN * _saved_bytes_per_row(clip, adaptation, names)
    if adaptation.capabilities.conditional:
        plain, followed = plain * tested, followed * images
    return max(1, int(memory / max(plain, followed)))


def _saved_bytes_per_row(clip: DualEncoder, adaptation: Adaptation, names: Sequence[str]) -> float:
    """Return the bytes that autograd saves for each row, measured on a few names; 0 for fewer than three names."""
    cut = clip.text.cut([*adaptation.edits("text"), *adaptation.stages("text")])
    some = min(PROBED, len(names))
    if cut == "features" or some < 3:
        return 0.0
    rows, saved = zip(*(_probe(clip, adaptation, names[:count]) for count in (some // 3, some)), strict=True)
    blocks = sum(point.startswith("block.") for point in clip.text.points)
    unseen = ATTENDED_AGAIN * (clip.text_width or 0) * clip.dtype.itemsize * blocks
    return (saved[1] - saved[0]) / (rows[1] - rows[0]) + unseen


def _probe(clip: DualEncoder, adaptation: Adaptation, names: Sequence[str]) -> tuple[int, int]:
    """Return the number of rows of these names' prompts, and the bytes that autograd saves for them."""
    with warnings.catch_warnings(action="ignore"):  # the tokenization of all classes warns, once
        unshared = adaptation.capabilities.unshared_prefix
        prompts = clip.tokenize_in_chunks(adaptation.prompts(names), unshared_prefix=unshared)
        references = adaptation.reference_features(clip, names)
        prompts = prompts if references is None else prompts.with_references(references)
    image = torch.ones(1, clip.width or 1, device=clip.device) if adaptation.capabilities.conditional else None
    edits, stages = adaptation.edits("text", image), adaptation.stages("text")
    with torch.enable_grad():
        saved = saved_bytes(lambda: prompts.run(clip.text, edits, stages))
    return prompts.rows, saved


def saved_bytes(compute: Callable[[], object]) -> int:
    """Return the bytes that autograd saves for the backward pass of a computation, weights included."""
    sizes: dict[int, int] = {}

    def record(x: Tensor) -> Tensor:
        for part in (x._indices(), x._values()) if x.is_sparse else (x,):
            storage = part.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return x.detach()  # keeps the memory, but not the graph: what saves its own output would hold itself for ever

    with torch.autograd.graph.saved_tensors_hooks(record, lambda x: x):
        result = compute()
    del result  # alive until here, so that no later tensor reuses the address of one that it holds
    return sum(sizes.values())


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak memory, so that each run has its own; on a CPU, only Linux can reset a process's peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET_PEAK.exists():
        with contextlib.suppress(OSError):
            RESET_PEAK.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory since the reset in megabytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def texts_at_once(adaptation: Adaptation, test_time: TestTimeMethod | None) -> int:
    """Return how many sets of class prompts are computed at once: such as one per test image adapted in one batch."""
    return test_time.texts_at_once if test_time is not None and adaptation.capabilities.supports_batched_params else 1
