"""Grids of runs: the same runs as one by one, what is missing of them, and what becomes of those that fail."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt import studies
from clipadapt.cli import main
from clipadapt.data.sources import DIGIT_NAMES
from clipadapt.errors import UserError, WriteError
from clipadapt.runs.directory import RunDirectory
from clipadapt.studies import compare as grid
from tests.test_api import FEW_DRAWINGS, assert_same, content

QUICK = [*FEW_DRAWINGS, "engine.max_steps=2", "engine.workers=0", "engine.cpu=true"]
OWN_MODULE = """
from clipadapt.adaptations import Adaptation
from clipadapt.errors import UserError


class Choosy(Adaptation):
    def __init__(self, clip, task):
        super().__init__(clip, task)
        if task.support.labels.numel() > len(task.class_names):
            raise UserError("needs a point that\\nthe tower lacks")
"""
OWN_METHOD = """
# @package _global_
defaults: [/objective@method.objective: cross_entropy, _self_]
method: {name: choosy, title: Choosy, adaptation: {_target_: own_choosy.Choosy}}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's folder with a method that can't do with many images."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "own"
    (folder / "method").mkdir(parents=True)
    (folder / "own_choosy.py").write_text(OWN_MODULE)
    (folder / "method" / "choosy.yaml").write_text(OWN_METHOD)
    yield folder
    sys.modules.pop("own_choosy", None)


def compare(output, *words):
    return main(["compare", "data=drawn", *QUICK, f"output={output}", *words])


def saved(output):
    """Rows, and the folder they are in."""
    (path,) = (output / "compare").glob("*/rows.json")
    return json.loads(path.read_text()), path.parent


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished grid: the folder of its runs, and its cells' directories."""
    output = tmp_path_factory.mktemp("compared")
    assert compare(output, "methods=[coop,zero_shot]", "shots=[1,2]", "seed=1,2") == 0
    return output


def test_a_cell_is_the_run_of_the_same_settings(compared, tmp_path):
    words = ["method=coop", "data=drawn", "shots=2", "seed=2", *QUICK]
    assert main([*words, f"output={tmp_path}"]) == 0
    (alone,) = tmp_path.rglob("result.json")
    assert_same(content(alone.parent), content(compared / alone.parent.relative_to(tmp_path)))


def test_what_it_says_is_kept(compared):
    rows, folder = saved(compared)
    assert [(row["method"], row["shots"], row["seeds"]) for row in rows] == [
        ("coop", 1, [1, 2]),
        ("zero_shot", 1, [1, 2]),
        ("coop", 2, [1, 2]),
        ("zero_shot", 2, [1, 2]),
    ]
    assert [row["zero_shot"] for row in rows] == [False, True, False, True]
    assert {path.name for path in folder.iterdir()} == {
        "comparison.md",
        "comparison.tex",
        "rows.csv",
        "rows.json",
        "results.csv",
        "report.html",
        "curves.png",
    }
    assert "quick schedule: at most 2 steps" in (folder / "comparison.md").read_text()
    results = [json.loads((RunDirectory(path).path / "result.json").read_text()) for path in rows[0]["runs"]]
    assert rows[0]["scores"]["test"]["accuracy"] == pytest.approx(sum(one["accuracy"] for one in results) / 2)
    assert len(rows[0]["scores"]) == len(results[0]["tests"]) > 1
    for result, path in zip(results, rows[0]["runs"], strict=True):
        assert result["schedule_note"] == "quick schedule: at most 2 steps"
        assert (
            json.loads((RunDirectory(path).path / "record.json").read_text())["plan"]["schedule_note"]
            == result["schedule_note"]
        )


def test_a_rerun_computes_what_is_missing(compared, capsys, monkeypatch):
    times = {path: path.stat().st_mtime_ns for path in compared.rglob("result.json")}
    before = saved(compared)
    capsys.readouterr()
    loaded = []
    monkeypatch.setattr(grid, "build_backbone", loaded.append)
    assert compare(compared, "methods=[coop,zero_shot]", "shots=[1,2]", "seed=[1,2]") == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 8 and "1/8 coop on drawn, 1 shot, seed 1: " in said
    assert "│ CoOp" in said and "(quick schedule: at most 2 steps)" in " ".join(said.split())
    assert not loaded and saved(compared) == before
    assert times == {path: path.stat().st_mtime_ns for path in compared.rglob("result.json")}


def test_a_larger_grid_takes_over_finished_runs(compared, capsys, monkeypatch):
    loaded = []
    load = grid.build_backbone
    monkeypatch.setattr(grid, "build_backbone", lambda config: loaded.append(config) or load(config))
    rows = clipadapt.compare(
        ["coop", "clip_adapter", "zero_shot"], "drawn", shots=1, seed=[1, 2], overrides=[*QUICK, f"output={compared}"]
    )
    assert [row["method"] for row in rows] == ["coop", "clip_adapter", "zero_shot"]
    assert len(loaded) == 1 and len([*compared.rglob("result.json")]) == 10
    assert not capsys.readouterr().out


def test_what_fails_is_told_and_stops_nothing(own, tmp_path, capsys):
    words = ["methods=[choosy,zero_shot]", "shots=[1,2]", "--config-dir", str(own)]
    assert compare(tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "3/4 choosy on drawn, 2 shots, seed 1: failed: needs a point that the tower lacks\n" in said
    assert "[1] Choosy on drawn (2 shots, seed 1): needs a point that the tower lacks" in " ".join(said.split())
    rows, _ = saved(tmp_path)
    assert rows[2]["failed"] == {"needs a point that the tower lacks": [1]} and rows[2]["scores"] == {}
    assert rows[0]["scores"] and rows[3]["scores"]


def test_when_all_fail_the_exit_code_says_so(own, tmp_path, capsys):
    assert compare(tmp_path, "methods=choosy", "shots=2", "--config-dir", str(own)) == 2
    captured = capsys.readouterr()
    assert "none of the 1 runs has a result" in captured.err and "failed [1]" in captured.out


def test_data_without_a_test_set_cannot_be_compared_on(tmp_path, capsys):
    image = clipadapt.load_task("drawn", shots=1).support[0][0]
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "one.png")
    words = ["data=unlabelled", f"data.root={tmp_path / 'images'}", "data.class_names=[cat,dog]", f"output={tmp_path}"]
    assert main(["compare", "methods=zero_shot", *words]) == 2
    assert grid.UNTESTED in " ".join(capsys.readouterr().out.split())


def test_ctrl_c_keeps_what_is_done(tmp_path, capsys, monkeypatch):
    run, done = grid.run, []

    def interrupted(*given):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(run(*given))
        return done[-1]

    monkeypatch.setattr(grid, "run", interrupted)
    assert compare(tmp_path, "methods=zero_shot", "seed=[1,2]") == 130
    assert f"Stopped. Finished work is kept in {tmp_path}" in capsys.readouterr().err
    assert len([*tmp_path.rglob("result.json")]) == 1
    monkeypatch.undo()
    assert compare(tmp_path, "methods=zero_shot", "seed=[1,2]") == 0
    assert capsys.readouterr().out.count("finished before") == 1


def test_a_full_disk_ends_the_study(tmp_path, capsys, monkeypatch):
    runs = []

    def full(*given):
        runs.append(1)
        raise WriteError("no room")

    monkeypatch.setattr(grid, "run", full)
    assert compare(tmp_path, "methods=zero_shot", "seed=[1,2]") == 2
    assert len(runs) == 1 and capsys.readouterr().err == "clipadapt: no room\n"


def test_a_fault_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*given):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(grid, "run", broken)
    with pytest.raises(ZeroDivisionError):
        compare(tmp_path, "methods=zero_shot")


def test_everything_is_checked_before_the_first_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grid, "run", lambda *given: pytest.fail("nothing may run"))
    assert compare(tmp_path, "methods=[coop,clip_adapter]", "shots=[1,0]", "method.adaptation.n_ctx=4", "-m") == 2
    assert "--multirun has no meaning here" in capsys.readouterr().err
    assert compare(tmp_path, "methods=[coop,clip_adapter]", "method.adaptation.n_ctx=4") == 2
    assert "with method=clip_adapter: there is no key method.adaptation.n_ctx" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean 'coop'"):
        clipadapt.compare("cop", console=Console(file=io.StringIO()))


def test_the_page_shows_the_images_that_were_tested(tmp_path):
    """A test image that is broken, and left out, moves none of the others; images that changed are not shown."""
    classes = ("circle", "square", "star", "cross")
    for split, count in (("train", 2), ("test", 4)):
        for label, name in enumerate(classes):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                colour = tuple(np.random.default_rng([label, number]).integers(0, 256, 3).tolist())
                Image.new("RGB", (32, 32), colour).save(tmp_path / "images" / split / name / f"{number}.png")
    (tmp_path / "images" / "test" / "circle" / "0.png").write_text("no image")
    words = ["methods=coop", "data=folder", f"data.root={tmp_path / 'images'}", "shots=1", f"output={tmp_path}"]
    words += ["task.skip_broken=true", "engine.max_steps=2", "engine.workers=0", "engine.cpu=true"]
    assert main(["compare", *words]) == 0
    (page,) = (tmp_path / "compare").glob("*/report.html")
    assert "shown:" not in page.read_text() and "CoOp on folder-images, 1 shot, seed 1" in page.read_text()
    assert saved(tmp_path)[0][0]["data"] == "folder-images"
    (tmp_path / "images" / "test" / "star" / "0.png").unlink()
    assert main(["compare", *words]) == 0
    assert "the images can&#39;t be shown: the data have changed since the run" in page.read_text()


@pytest.mark.slow
def test_the_page_shows_both_halves_of_the_classes(tmp_path):
    words = ["methods=[coop]", "data=[digits]", "shots=[1]", "seed=[1]", "engine.max_steps=2", "engine.workers=0"]
    study = studies.study("base_to_new", [*words, "engine.cpu=true", f"output={tmp_path}"])
    grid.run_study(study, Console(quiet=True))
    text = (study.directory / "report.html").read_text()
    base, new = text.partition("CoOp on digits (base classes), 1 shot, seed 1")[2].split(
        "CoOp on digits (new classes), 1 shot, seed 1"
    )
    shown = [{name for name in DIGIT_NAMES if f"<span>{name}</span>" in half} for half in (base, new)]
    assert shown == [{*DIGIT_NAMES[:5]}, {*DIGIT_NAMES[5:]}]
    assert "data:image/jpeg" in base and "data:image/jpeg" in new and "shown:" not in text
