"""Progress bars count what the work reports."""

import io

import pytest
from rich.console import Console

from clipadapt.report import progress


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120)


def test_the_bar_over_images_counts_them():
    console = terminal()
    with progress.images(console, 12) as update:
        update(5)
        update(7)
    assert "12/12" in console.file.getvalue()


def test_the_bar_over_epochs_goes_on_from_where_a_fit_stopped():
    console = terminal()
    with progress.epochs(console, 2, 4) as update:
        update({"loss": 0.5, "accuracy": 0.75})
        update({"loss": 0.25, "accuracy": 1.0})
    text = console.file.getvalue()
    assert "4/4" in text and "loss 0.250, training accuracy 100.0 %" in text


@pytest.mark.parametrize("widgets, hidden", [(None, True), ("there", False)])
def test_a_notebook_shows_bars_if_it_can(monkeypatch, widgets, hidden):
    monkeypatch.setattr(progress, "find_spec", lambda name: widgets)
    assert progress.is_hidden(Console(force_jupyter=True)) is hidden
    assert not progress.is_hidden(terminal()) and progress.is_hidden(Console(quiet=True, force_jupyter=True))
