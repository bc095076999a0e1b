"""Free memory, and the share of it that may be taken."""

import psutil
import torch

SHARE = 0.5
"""Share of the free memory that may be taken if the user sets no limit."""


def free_bytes(device: torch.device) -> int:
    """Return the bytes that tensors on this device could still take."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def budget(memory: float | None, device: torch.device, processes: int) -> float:
    """Return the bytes that the activations of a step may take.

    Args:
        memory: gigabytes, or None for half of the memory that is free now.
        device: device of the activations.
        processes: number of processes that share the device, if it is a CPU.
    """
    if memory is not None:
        return memory * 1e9
    return SHARE * free_bytes(device) / (1 if device.type == "cuda" else processes)
