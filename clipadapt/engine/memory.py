"""How many rows of the text tower fit in the memory that a run may take, and the most that it took."""

import contextlib
import resource
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipadapt.adaptations.base import Adaptation
from clipadapt.backbone.dual_encoder import DualEncoder

MARGIN = 1.25
"""What a backward pass holds beside the saved activations: gradients of the block it is in."""
WIDTHS = 14
"""Channels per row, in widths of the tower, that a block holds at once without gradients: its input, queries, keys,
values, what was attended, and the MLP's hidden layer before and after its activation."""
ATTENDED_AGAIN = 3
"""Channels per row and block, in widths of the tower, that attention is computed again from for its gradients: queries,
keys and values, of which autograd's hooks aren't told."""
RESET_PEAK = Path("/proc/self/clear_refs")
"""Where Linux takes a 5 for: forget the most memory that this process has had."""
PROBED = 24
"""Number of classes at which activations are measured, and at a third of them: the difference leaves weights out."""


def max_rows(
    clip: DualEncoder, adaptation: Adaptation, class_names: Sequence[str], memory: float, images: int, tested: int
) -> int | None:
    """How many rows of the text tower can be computed at once; None where nothing is known of them.

    Args:
        clip: the backbone.
        adaptation: whose gradients a step follows.
        class_names: the classes.
        memory: bytes.
        images: images of a step, each with texts of its own where the adaptation is conditional.
        tested: the same without gradients.
    """
    if clip.text_width is None:
        return None
    plain = WIDTHS * clip.text_width * clip.dtype.itemsize
    followed = MARGIN * _saved_bytes_per_row(clip, adaptation, class_names)
    if adaptation.capabilities.conditional:
        plain, followed = plain * tested, followed * images
    return max(1, int(memory / max(plain, followed)))


def _saved_bytes_per_row(clip: DualEncoder, adaptation: Adaptation, class_names: Sequence[str]) -> float:
    """What autograd keeps for each further row, measured on a few classes; 0 where there are fewer than three."""
    cut = clip.text.cut([*adaptation.edits("text"), *adaptation.stages("text")])
    some = min(PROBED, len(class_names))
    if cut == "features" or some < 3:
        return 0.0
    rows, saved = zip(*(_probe(clip, adaptation, class_names[:count]) for count in (some // 3, some)), strict=True)
    blocks = sum(point.startswith("block.") for point in clip.text.points)
    unseen = ATTENDED_AGAIN * (clip.text_width or 0) * clip.dtype.itemsize * blocks
    return (saved[1] - saved[0]) / (rows[1] - rows[0]) + unseen


def _probe(clip: DualEncoder, adaptation: Adaptation, class_names: Sequence[str]) -> tuple[int, int]:
    """Rows of these classes, and bytes that autograd keeps of them."""
    with warnings.catch_warnings(action="ignore"):  # whoever tokenizes all of them tells what is wrong with them
        unshared = adaptation.capabilities.unshared_prefix
        prompts = clip.tokenize_in_chunks(adaptation.prompts(class_names), unshared_prefix=unshared)
    image = torch.ones(1, clip.width or 1, device=clip.device) if adaptation.capabilities.conditional else None
    edits, stages = adaptation.edits("text", image), adaptation.stages("text")
    with torch.enable_grad():
        saved = saved_bytes(lambda: prompts.run(clip.text, edits, stages))
    return prompts.rows, saved


def saved_bytes(compute: Callable[[], object]) -> int:
    """Bytes that autograd keeps of a computation until its gradients are asked for, weights included."""
    sizes: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        for part in (x._indices(), x._values()) if x.is_sparse else (x,):
            storage = part.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        kept = compute()
    del kept  # it had to live until here: what it holds shares no address with anything later
    return sum(sizes.values())


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, so that a run's is its own; a process's own peak can't be reset on systems but Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET_PEAK.exists():
        with contextlib.suppress(OSError):
            RESET_PEAK.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory taken since the reset in megabytes: on a GPU by tensors, on a CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
