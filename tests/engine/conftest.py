"""The backbone of these tests."""

import pytest

from clipadapt.backbone.open_clip import CLIP


@pytest.fixture(scope="session")
def clip():
    return CLIP.load("tiny", "embedded")
