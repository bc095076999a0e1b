"""Checkpoint files: TorchScript archives as OpenAI's are read, and what a file doesn't say is told."""

import os

import pytest
import torch
from torch import nn

from clipadapt.backbone import open_clip as family
from clipadapt.backbone.checkpoint_files import OF_OPENAI, as_plain_checkpoint, read_archive
from clipadapt.console import run_command


class Empty(nn.Module):
    pass


def archive(weights, path, extra=()):
    """Save weights as a TorchScript archive, whose module has their names."""
    root = Empty()
    for name, value in {**weights, **{key: torch.tensor(7) for key in extra}}.items():
        place, (*parents, last) = root, name.split(".")
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, Empty())
            place = getattr(place, parent)
        place.register_buffer(last, value)
    torch.jit.script(root).save(str(path))
    return str(path)


def test_a_torchscript_archive_is_read(tmp_path):
    backbone = family.load("tiny", None, seed=3)
    path = archive(backbone.model.state_dict(), tmp_path / "a.pt")
    assert family.load("tiny", path).fingerprint == backbone.fingerprint


@pytest.mark.parametrize("extra", [(), OF_OPENAI])
def test_openais_archives_have_quick_gelu(tmp_path, extra, monkeypatch, recwarn):
    weights, made = {"a.weight": torch.ones(2, dtype=torch.float16)}, []

    def create(name, pretrained, **options):
        made.append((torch.load(pretrained), options.get("force_quick_gelu")))

    monkeypatch.setattr(family.open_clip, "create_model", create)
    family._create("ViT-B-32", archive(weights, tmp_path / "a.pt", extra), None)
    [(found, quick)] = made
    assert [*found] == ["a.weight"] and found["a.weight"].dtype == torch.float32 and bool(quick) == bool(extra)
    notes = [str(each.message) for each in recwarn if "activation" in str(each.message)]
    assert len(notes) == (0 if extra else 1) and all("backbone.name=ViT-B-32-quickgelu" in text for text in notes)


def test_other_files_and_tags_stay(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_text("no checkpoint")
    for path in (str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "openai", None):
        with as_plain_checkpoint(path) as found:
            assert found == (path, False)
    assert read_archive(str(tmp_path / "a.pt")) is None


def test_the_backend_of_a_notebook_does_no_harm(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert run_command(lambda: int("MPLBACKEND" in os.environ)) == 0
    monkeypatch.setenv("MPLBACKEND", "svg")
    assert run_command(lambda: int(os.environ["MPLBACKEND"] != "svg")) == 0
