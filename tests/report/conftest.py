"""The figures behind the pictures."""

import pytest

from clipadapt.report import curves, pictures


@pytest.fixture(autouse=True)
def pictures_are_rendered(rendered):
    """The tests of this folder look at pictures."""


@pytest.fixture
def drawn_figures(monkeypatch):
    """The figures as they are saved."""
    found = []
    save = pictures.save

    def watched(figure, path):
        found.append(figure)
        return save(figure, path)

    monkeypatch.setattr(pictures, "save", watched)
    monkeypatch.setattr(curves, "save", watched)
    return found
