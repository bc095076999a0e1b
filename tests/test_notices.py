import sys
import warnings

import pytest

from clipadapt.notices import announce, notice, show_progress


class OddData(UserWarning):
    pass


def read(warn, levels):
    warn("an odd image", OddData, **levels)


@pytest.mark.parametrize("levels", [{}, {"stacklevel": 1}, {"stacklevel": 2}, {"stacklevel": 3}])
def test_a_notice_is_attributed_as_a_warning_is(levels):
    with pytest.warns(OddData, match="^an odd image$") as caught:
        for warn, where in ((warnings.warn, {"stacklevel": 2} | levels), (notice, levels)):
            read(warn, where)
    plain, ours = ((one.filename, one.lineno, str(one.message), one.category) for one in caught)
    assert plain == ours


def test_a_notice_is_a_user_warning_unless_told_otherwise():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notice("few images")
    assert [one.category for one in caught] == [UserWarning]


@pytest.mark.parametrize("rank, written", [("0", "fetching, once\n"), ("1", "")])
def test_announcements_are_written_to_stderr_by_rank_0(rank, written, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    announce("fetching, once")
    assert capsys.readouterr() == ("", written)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_shown_on_a_terminal_only(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("RANK", raising=False)
    with show_progress("counting sheep") as track:
        assert [*track([1, 2]), *track([3])] == [1, 2, 3]
    assert ("counting sheep" in capsys.readouterr().out) == terminal
