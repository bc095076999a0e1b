"""The usual folder of the disk cache may be missing; one that the user has named must be there."""

from pathlib import Path

import pytest
import yaml

from clipadapt.config.tree import conf_dir
from clipadapt.errors import WriteError
from clipadapt.features.loader import USUAL_CACHE, usable_cache


@pytest.fixture
def no_home(tmp_path, monkeypatch):
    """The home folder can't be written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))


def no_user(self):
    raise RuntimeError("Could not determine home directory.")


def test_it_is_that_of_the_settings():
    usual = yaml.safe_load(Path(conf_dir(), "engine", "default.yaml").read_text())["cache"]
    assert usual == f'${{oc.env:CLIPADAPT_CACHE,"{USUAL_CACHE}"}}'


def test_without_it_nothing_is_kept(no_home):
    with pytest.warns(UserWarning, match=r"every run computes anew .* \(File exists|Not a directory\)"):
        assert usable_cache(USUAL_CACHE, 1) is None


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(Path, "expanduser", no_user)
    with pytest.warns(UserWarning, match="there is no home folder"):
        assert usable_cache(USUAL_CACHE, 1) is None
    with pytest.raises(WriteError, match="there is no home folder"):
        usable_cache("~/mine", 1)


def test_a_folder_that_was_named_must_be_there(no_home):
    with pytest.raises(WriteError, match=r"~/mine|file/mine"):
        usable_cache("~/mine", 1)


def test_several_processes_must_agree(no_home, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(WriteError, match=r"engine\.cache=DIR"):
        usable_cache(USUAL_CACHE, 1)


def test_one_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usable_cache(USUAL_CACHE, 1) == USUAL_CACHE and (tmp_path / ".cache" / "clipadapt").is_dir()
    assert usable_cache(None, 1) is None
