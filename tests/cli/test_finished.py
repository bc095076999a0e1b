"""`clipadapt list` and `clipadapt show`."""

import json
import re
import shutil

import pytest

from clipadapt.cli import finished, main
from clipadapt.errors import UserError

WORDS = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12", "shots=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    rest = ["method=zero_shot", "engine.workers=0", "engine.cpu=true", "engine.cache=null", f"output={place}"]
    assert main([*WORDS, *rest]) == 0
    (result,) = place.rglob("result.json")
    unfinished, damaged = (place / "other" / name for name in ("unfinished", "damaged"))
    shutil.copytree(result.parent, unfinished)
    (unfinished / "result.json").unlink()
    shutil.copytree(result.parent, damaged)
    (damaged / "record.json").write_text("{}")
    return place, result.parent


def test_a_line_for_every_run(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", f"folder={runs[0]}"]) == 0
    said = capsys.readouterr().out
    assert "3 runs: accuracy" in said
    (line,) = (line for line in said.splitlines() if " zero_shot " in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells[1:3] == ["zero_shot", "drawn-shapes"] and cells[3] == cells[4] and cells[3].endswith(" %")
    assert "other/unfinished: not finished: the command of the run goes on with it" in said
    assert "other/damaged: " in said and "record.json" in said.split("other/damaged: ")[1]


def test_runs_are_told_apart_by_their_settings(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", f"folder={runs[0]}"]) == 0
    assert "settings" not in capsys.readouterr().out  # which all of them share
    rest = ["method=zero_shot", "engine.workers=0", "engine.cpu=true", "engine.cache=null", f"output={runs[0]}/more"]
    assert main([*WORDS, *rest, "task.resize=pad", "data.templates=[a {}]"]) == 0
    capsys.readouterr()
    assert main(["list", f"folder={runs[0]}"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "task.resize=pad" in line)
    assert 'data.templates=["a {}"]' in line and "data.test_images" not in line and "more/drawn" in line
    (result,) = (runs[0] / "more").rglob("result.json")
    assert main(["show", f"run={result.parent}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "task.resize=pad" in said and "data.test_images=12" in said
    shutil.rmtree(runs[0] / "more")


def test_a_run_is_shown(runs, capsys):
    assert main(["show", f"run={runs[1]}"]) == 0
    said = capsys.readouterr().out
    assert "zero_shot on drawn-shapes with tiny" in said and "learned parameters" in said and "Plan" in said


def figure_rows(text):
    """The rows of the last table of an output, as text without its layout, but for costs."""
    rows = [" ".join(re.findall(r"[^\s│]+", line)) for line in text.splitlines() if "│" in line]
    costs = ("learned", "share of", "time", "peak memory", "every step", "steps")
    return {row for row in rows if not row.startswith(costs) and "%" in row}


def test_an_evaluation_shows_the_figures_of_the_run_and_keeps_them(runs, capsys, tmp_path):
    assert main(["show", f"run={runs[1]}"]) == 0
    shown = figure_rows(capsys.readouterr().out)
    output = tmp_path / "figures.json"
    assert main(["evaluate", f"run={runs[1]}", f"output={output}"]) == 0
    said = capsys.readouterr().out
    assert figure_rows(said) == shown and any("95 % interval" in row for row in shown)
    assert "Brier score" in said and f"The figures: {output}" in said
    metrics, kept = (json.loads(path.read_text()) for path in (runs[1] / "result.json", output))
    assert kept["run"] == str(runs[1]) and kept["data"] is None and kept["tests"] == metrics["tests"]
    assert main(["evaluate", f"run={runs[1]}", f"output={output}"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["evaluate", f"run={runs[1]}", "output=figures.csv"]) == 2
    assert "output=figures.csv doesn't end in .json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["list", "folder={}/nowhere"], "there is no folder"),
        (["list", "folder={}/drawn/tiny/zero_shot/none"], "there is no folder"),
        (["list", "foldr={}"], "there is no key foldr: did you mean"),
        (["show", "run={}/other/damaged"], "record.json"),
        (["show", "run={}/other/unfinished"], "is no finished run"),
        (["show"], "say which run: clipadapt show run="),
        (["list", "runs={}"], "there is no key runs: the only one is 'folder'"),
        (["list", "photos"], "'photos' is no setting: write key=value, as in clipadapt list folder=outputs"),
        (["predict", "{}", "photos"], "write key=value, as in clipadapt predict run=DIR images=PATH"),
    ],
)
def test_what_cannot_be_listed_or_shown(runs, capsys, words, message):
    assert main([word.format(runs[0]) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_runs(tmp_path, capsys):
    assert main(["list", f"folder={tmp_path}"]) == 2
    assert f"there are no runs in {tmp_path}" in capsys.readouterr().err


def settings_of(data, method="mine"):
    config = {"data": data, "backbone": {"name": "tiny"}, "method": {"name": method, "also": {}, "mine": 5}}
    return finished.find_settings(config, {})


def test_a_task_made_by_hand_and_a_method_of_ones_own_have_no_defaults():
    assert settings_of({"name": "by hand"}) == {}
    found = settings_of({"_target_": "mine.images", "root": "photos"})
    assert found["data._target_"] == "mine.images" and not any(key.startswith("method.") for key in found)
    assert settings_of({"_target_": "mine.images"}, "coop")["method.mine"] == 5


@pytest.mark.parametrize("config", [{}, {"data": 5}, {"data": {"_target_": "x"}, "method": []}])
def test_settings_that_are_none_of_a_run(config):
    with pytest.raises(UserError, match=r"its config\.yaml holds no settings of a run"):
        finished.find_settings(config, {})


def test_a_path_that_is_none():
    with pytest.raises(UserError, match=r"its config\.yaml holds no settings of a run"):
        settings_of({"_target_": "x", "root": "~nobody-of-this-name/x"})
