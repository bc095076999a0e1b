"""Finished runs evaluated on other data and on corrupted images, each once."""

import io
import json

import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt import config, studies
from clipadapt.cli import main
from clipadapt.data.corruptions import corrupted
from clipadapt.errors import UserError
from clipadapt.runs import finished
from clipadapt.runs.finished import FinishedRun, evaluate_finished
from clipadapt.runs.targets import EvaluationTarget
from tests.test_api import FEW_DRAWINGS

QUICK = [*FEW_DRAWINGS, "engine.max_steps=2", "engine.workers=0", "engine.cpu=true", "shots=2"]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on drawn shapes."""
    output = tmp_path_factory.mktemp("finished")
    assert main(["data=drawn", *QUICK, f"output={output}"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


def test_other_data(run):
    data = config.compose(["data=glyphs", "data.test_images=40"])["data"]
    found = FinishedRun(run).evaluate_targets([EvaluationTarget("glyphs", data=data)], QUIET)
    assert found == {"glyphs": evaluate_finished(run, data, QUIET)["tests"]["test"]}


def test_corrupted_images(run):
    (target,) = studies.study("corruptions", ["corruptions=[contrast]", "severities=[5]"]).targets
    done = FinishedRun(run)
    (figures,) = done.evaluate_targets([target], QUIET).values()
    task = done.task(None, QUIET)
    darker = corrupted(task.tests["test"], "contrast", 5)
    expected = done.evaluate_task(finished.replace(task, tests={"darker": darker}), QUIET)["tests"]["darker"]
    assert figures == expected
    assert figures["zero_shot_accuracy"] < json.loads((run / "result.json").read_text())["zero_shot_accuracy"]


def test_what_stands_for_clean_images_is_computed_once(run, monkeypatch):
    from clipadapt.data import corruptions, images

    read, calls = images.fingerprints, []
    for module in (images, corruptions):
        monkeypatch.setattr(module, "fingerprints", lambda found: calls.append(found) or read(found))
    targets = studies.study("corruptions", ["corruptions=[brightness,fog]", "severities=[1,2]"]).targets
    test = FinishedRun(run).task(None, QUIET).tests["test"]
    assert len(finished.corrupt_test_set(targets, test)) == 4
    assert sum(found is test.images for found in calls) == 1


def test_measured_once(run, monkeypatch):
    (target,) = studies.study("corruptions", ["corruptions=[pixelate]", "severities=[1]"]).targets
    first = FinishedRun(run).evaluate_targets([target], QUIET)
    monkeypatch.setattr(finished, "learned_head", None)
    assert FinishedRun(run).evaluate_targets([target], QUIET) == first


def test_a_study_has_every_test_set_in_its_table(tmp_path, capsys):
    words = ["methods=[zero_shot]", "data=[drawn]", "seed=[1]", "targets=[digits]", *QUICK[:-1], f"output={tmp_path}"]
    study = studies.study("corruptions", [*words, "corruptions=[contrast]", "severities=[1,5]"])
    console = Console(width=200, file=io.StringIO())
    from clipadapt.studies.compare import run_study

    (row,) = run_study(study, console)
    assert {"test", "digits", "contrast/1", "contrast/5"} <= {*row["scores"]}
    assert row["targets"] == ["digits", "contrast/1", "contrast/5"] and "sketch" in row["scores"]
    text = console.file.getvalue()
    assert "average: of digits, contrast\n" in text
    assert "contrast" in text and "contrast/5" not in text
    lines = (study.directory / "results.csv").read_text().splitlines()
    assert len(lines) == 1 + len(row["scores"])
    assert sum("contrast/" in line for line in lines) == 2


def test_other_data_without_a_test_set_are_measured_whole(run, tmp_path):
    few_images(tmp_path, clipadapt.load_task("drawn", shots=1).class_names[:3])
    data = config.compose(["data=folder", f"data.root={tmp_path}"])["data"]
    assert evaluate_finished(run, data, QUIET)["images"] == 9


def test_other_classes_have_no_temperature_of_the_run(run, tmp_path):
    metrics = json.loads((run / "result.json").read_text())
    own, names = FinishedRun(run), json.loads((run / "record.json").read_text())["class_names"]
    assert own._known_scores(own.task(None, QUIET)) == metrics["known_scores"]
    few_images(tmp_path, names[:3])
    data = config.compose(["data=folder", f"data.root={tmp_path}"])["data"]
    assert own._known_scores(own.task(data, QUIET)) is None
    assert own._known_scores(own.task(data, QUIET, classes="run")) == metrics["known_scores"]


def few_images(folder, names, count=3):
    """A folder of flat images, a folder for each class."""
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (32, 32), (80 * number, 20 * label, 120)).save(folder / name / f"{number}.png")
    return folder


def without_learning(output, *words):
    """Directory of a run of zero-shot CLIP."""
    assert main([*words, "method=zero_shot", "shots=2", f"output={output}", "engine.cpu=true"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


DRAWN = ["data=drawn", *FEW_DRAWINGS]


@pytest.mark.parametrize(
    "target, templates",
    [
        (["data=digits"], None),  # other classes, with a template of their own
        (["data=drawn", *FEW_DRAWINGS, "data.size=40"], None),
        (["data=drawn", *FEW_DRAWINGS, "data.templates=['one {}']"], ["one {}"]),
    ],
)
def test_what_has_learned_nothing_is_zero_shot_elsewhere(tmp_path, target, templates):
    directory = without_learning(tmp_path, *DRAWN)
    data = config.compose(target)["data"]
    task = FinishedRun(directory).task(data, QUIET)
    assert templates in (None, task.templates)
    found = evaluate_finished(directory, data, QUIET)
    assert found["accuracy"] == found["zero_shot_accuracy"]


def test_classes_of_the_run_keep_its_templates(tmp_path):
    directory = without_learning(tmp_path / "runs", *DRAWN, "data.templates=['my {}']")
    names = json.loads((directory / "record.json").read_text())["class_names"]
    some = config.compose(["data=folder", f"data.root={few_images(tmp_path / 'some', names[:2])}"])["data"]
    others = config.compose(["data=folder", f"data.root={few_images(tmp_path / 'others', ['cat', names[0]])}"])["data"]
    chosen = {**some, "templates": ["their {}"]}
    found = [FinishedRun(directory).task(data, QUIET).templates for data in (some, others, chosen)]
    assert found == [["my {}"], ["a photo of a {}."], ["their {}"]]


@pytest.mark.parametrize("method", ["tpt", "tda"])
def test_templates_of_null_are_the_datas_own_at_test_time(method, tmp_path):
    root = few_images(tmp_path / "images", ["red", "blue"], 5)
    words = [f"method={method}", "method.test_time.views=2", "data=folder", f"data.root={root}", "shots=1"]
    few = ["data.templates=null", "engine.cpu=true", "engine.workers=0", f"output={tmp_path / 'runs'}"]
    assert main([*words, *few]) == 0
    (record,) = (tmp_path / "runs").rglob("record.json")
    assert json.loads(record.read_text())["templates"] == ["a photo of a {}."]


def test_images_that_were_learned_from_are_no_test_set(tmp_path):
    folder = few_images(tmp_path / "images", ["red", "blue"], 9)
    words = ["data=folder", f"data.root={folder}"]
    assert main([*words, "engine.max_steps=1", "shots=2", f"output={tmp_path / 'runs'}", "engine.cpu=true"]) == 0
    (result,) = (tmp_path / "runs").rglob("result.json")
    figures = json.loads(result.read_text())
    again = evaluate_finished(result.parent, config.compose([*words, "data.templates=['a {}']"])["data"], QUIET)
    assert again["images"] == figures["images"] == 2 * (9 - 2 - 2)
    Image.new("RGB", (32, 32)).save(folder / "red" / "more.png")
    for data in (None, config.compose(words)["data"]):
        with pytest.raises(UserError, match="those it learned from can't be left out of a test"):
            evaluate_finished(result.parent, data, QUIET)


def test_a_target_that_fails_costs_no_figures_of_the_run(tmp_path):
    words = ["methods=[tip_adapter]", "data=[drawn]", "seed=[1]", *QUICK[:-1], f"output={tmp_path}"]
    study = studies.study("domain_shift", [*words, "targets=[digits]"])
    from clipadapt.studies.compare import run_study

    console = Console(width=200, file=io.StringIO())
    (row,) = run_study(study, console)
    assert row["seeds"] == [1] and "test" in row["scores"] and "digits" not in row["scores"] and not row["targets"]
    (reason,) = row["failed"]
    assert reason.startswith("not tested on digits: this method learns something for each of its classes")
    assert reason in (study.directory / "comparison.md").read_text()


def test_a_target_of_a_test_sets_name_does_not_take_its_place(run):
    from clipadapt.studies.compare import evaluate_on_targets

    own = json.loads((run / "result.json").read_text())["tests"]
    (cell,) = studies.study("domain_shift", ["methods=[coop]", "data=[drawn]", "seed=[1]", *QUICK]).runs
    cell = finished.replace(cell, directory=run)
    data = config.compose(["data=digits"])["data"]
    tests = {**own}
    (reason,) = evaluate_on_targets(cell, tests, [EvaluationTarget("sketch", data=data)], QUIET)
    assert tests == own and "drawn has a test set of its own called sketch" in reason


def test_data_to_test_on_that_are_not_there_are_told_before_anything_is_learned(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPADAPT_DATA", str(tmp_path / "nowhere"))
    words = ["methods=[coop]", "data=[drawn]", "targets=[dtd]", f"output={tmp_path}"]
    from clipadapt.studies.compare import run_study

    with pytest.raises(UserError, match="nowhere"):
        run_study(studies.study("cross_dataset", words), QUIET)
    assert not [*tmp_path.iterdir()]


def test_what_is_kept_of_targets_goes_where_the_runs_do(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPADAPT_CACHE", str(tmp_path / "usual"))
    words = ["methods=[zero_shot]", "data=[drawn]", "seed=[1]", *QUICK[:-1], f"output={tmp_path / 'runs'}"]
    from clipadapt.studies.compare import run_study

    run_study(studies.study("domain_shift", [*words, "targets=[digits]", "engine.cache=null"]), QUIET)
    assert not (tmp_path / "usual").exists()


def test_a_target_whose_images_have_changed_is_measured_again(tmp_path):
    names = clipadapt.load_task("drawn", shots=1).class_names[:2]
    root = few_images(tmp_path / "images", names)
    words = ["methods=[zero_shot]", "data=[drawn]", "seed=[1]", *QUICK[:-1], f"output={tmp_path / 'runs'}"]
    study = studies.study("domain_shift", words)
    target = EvaluationTarget("own", data=config.compose(["data=folder", f"data.root={root}"])["data"])
    from clipadapt.studies.compare import run_study

    def images():
        return run_study(finished.replace(study, targets=[target]), QUIET)[0]["scores"], (
            json.loads(path.read_text())["content"]["images"] for path in tmp_path.rglob("transfer/*.json")
        )

    assert [*images()[1]] == [6]
    Image.new("RGB", (40, 40), (9, 9, 9)).save(root / names[0] / "more.png")
    assert sorted(images()[1]) == [6, 7]
    root.rename(tmp_path / "moved")
    scores, kept = images()
    assert "own" in scores and sorted(kept) == [6, 7]


def test_a_finished_run_whose_data_have_changed_says_so(tmp_path, capsys):
    root = few_images(tmp_path / "images", ["red", "blue"], 9)
    words = ["data=folder", f"data.root={root}", "shots=2", "method=zero_shot", f"output={tmp_path / 'runs'}"]
    said = []
    for change in (
        lambda: None,
        lambda: None,
        lambda: (root / "red" / "0.png").write_bytes(b"!"),
        lambda: root.rename(tmp_path / "x"),
    ):
        change()
        assert main(words) == 0
        said.append(" ".join(capsys.readouterr().out.split()))
    assert "note:" not in said[0] and "note:" not in said[1]
    assert "the data have changed since this run was finished: rerun=true" in said[2]
    assert "can't be told whether the data have changed since this run was finished: " in said[3]


def test_a_study_marks_runs_whose_data_have_changed(tmp_path):
    root = few_images(tmp_path / "images", ["red", "blue"], 9)
    words = ["methods=[zero_shot]", "data=[folder]", f"data.root={root}", "seed=[1]", f"output={tmp_path / 'runs'}"]
    from clipadapt.studies.compare import run_study

    run_study(studies.study("few_shot", [*words, "shots=[1]"]), QUIET)
    (root / "red").rename(root / "green")
    before, after = run_study(studies.study("few_shot", [*words, "shots=[1,2]"]), QUIET)
    assert not after["failed"] and "the data have changed" in next(iter(before["failed"]))


def test_a_task_made_by_hand_asks_for_data(tmp_path):
    task = finished.replace(clipadapt.load_task("digits", shots=1), origin=None)
    result = clipadapt.finetune(clipadapt.load_backbone("tiny"), task, method="zero_shot")
    result.save(tmp_path / "run")
    with pytest.raises(UserError, match="made by hand or packed: name data"):
        evaluate_finished(tmp_path / "run", console=QUIET)
