"""The memory that a step may take."""

import torch

from clipadapt.features import memory

CPU = torch.device("cpu")


def test_half_of_what_is_free_or_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 8e9)
    assert memory.budget(None, CPU, 1) == 4e9
    assert memory.budget(None, CPU, 2) == 2e9
    assert memory.budget(1.5, CPU, 2) == 1.5e9
