"""The memory that a step may take."""

from types import SimpleNamespace

import pytest
import torch

from clipadapt.features import memory
from clipadapt.features.loader import FeatureLoader

CPU = torch.device("cpu")


def test_half_of_what_is_free_or_what_was_asked_for(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 8e9)
    assert memory.budget(None, CPU, 1) == 4e9
    assert memory.budget(None, CPU, 2) == 2e9
    assert memory.budget(1.5, CPU, 2) == 1.5e9


@pytest.mark.parametrize("views, said", [(0, "features of 40 images,"), (8, "features of 40 images, 8 views of each,")])
def test_the_plan_says_how_many_views_are_kept(views, said):
    task, placement = SimpleNamespace(views=views, support=range(40)), SimpleNamespace(anywhere=True, megabytes=1.5)
    placement.in_memory = placement.on_disk = True
    described = FeatureLoader.describe(
        SimpleNamespace(cache="a"), SimpleNamespace(image_cut="features"), task, placement
    )
    assert described == f"{said} 1.5 MB, in memory and in a"
