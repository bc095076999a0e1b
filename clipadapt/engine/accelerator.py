"""Accelerate's view of a run: its processes, its device and its number format."""

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from clipadapt.engine.settings import Settings
from clipadapt.errors import UserError
from clipadapt.test_time.base import TestTimeMethod

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerator_for(settings: Settings, test_time: TestTimeMethod | None = None) -> Accelerator:
    """Return the `Accelerator` with a run's processes, device and number format.

    Raises:
        UserError: a method that needs all test images has several processes, or several processes have no GPU.
    """
    if not torch.distributed.is_initialized():
        forget_accelerator()
    mixed = {"fp32": "no"}.get(settings.precision, settings.precision)
    accelerator = Accelerator(cpu=settings.cpu, mixed_precision=mixed)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes < started:  # each process would do the whole run
        raise UserError(f"{started} processes were started, and there is no GPU for them: add engine.cpu=true")
    how = None if test_time is None else how_together(test_time)
    if how is not None and accelerator.num_processes > 1:
        raise UserError(
            f"this method {how}, and can't share them out over {accelerator.num_processes} processes: run it in one"
        )
    return accelerator


def how_together(test_time: TestTimeMethod) -> str | None:
    """Say how the answer to a test image depends on others; None if it doesn't."""
    return {
        "image": None,
        "batch": f"adapts to batches of {test_time.images} test images, each as a whole",
        "stream": "learns along the test images, one after another",
        "set": "sees all test images together",
    }[test_time.adapts_to]


def forget_accelerator() -> None:
    """Reset Accelerate's state, so that the next `Accelerator` can have another device and number format.

    Accelerate has one state per process and no public function to reset it; its own tests call this one, too.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
