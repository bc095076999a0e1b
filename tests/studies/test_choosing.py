"""The choice among methods: folds, successive halving within a budget, and the run of the chosen one."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt.cli import main
from clipadapt.errors import SettingsError, UserError
from clipadapt.runs.folds import HELD_OUT, fold_task, number_of_folds, stratified_folds
from clipadapt.studies import choosing, fold_fits
from clipadapt.studies.candidates import Candidate, find_candidates, needs_more
from clipadapt.studies.choice import read
from clipadapt.studies.choosing import Budget, Chooser
from clipadapt.studies.fold_fits import FoldFits
from tests.small import composed

QUIET = Console(quiet=True)
FEW = ["zero_shot", "tip_adapter", "linear_probe"]


@pytest.fixture(autouse=True)
def once(request, monkeypatch):
    if "simulate" not in request.fixturenames:
        monkeypatch.setattr(choosing, "MOST_REPEATS", 1)


@pytest.fixture(scope="module")
def task():
    return clipadapt.load_task("digits", shots=4)


@pytest.fixture(scope="module")
def backbone():
    return clipadapt.load_backbone()


def test_every_image_is_held_out_once():
    labels = [0] * 5 + [1] * 4 + [2] * 2
    held = stratified_folds(labels, 4, seed=3)
    assert sorted(index for some in held for index in some) == [*range(11)]
    for label, most in ((0, 2), (1, 1), (2, 1)):
        counts = [sum(labels[index] == label for index in some) for some in held]
        assert max(counts) == most
    assert max(map(len, held)) - min(map(len, held)) <= 1
    assert held == stratified_folds(labels, 4, seed=3) != stratified_folds(labels, 4, seed=4)


def test_the_only_image_of_a_class_is_never_held_out():
    held = stratified_folds([0, 1, 1, 0, 2], 2, seed=1)
    assert all(4 not in some for some in held)


@pytest.mark.parametrize("labels, folds", [([0, 1, 2], 1), ([0, 0, 1], 2), ([0] * 9, 4), ([], 1)])
def test_there_are_as_many_folds_as_images_of_a_class_up_to_four(labels, folds):
    assert number_of_folds(labels) == folds


def test_a_fold_learns_from_the_rest_and_sees_no_test_image(task):
    held = stratified_folds(task.support.labels, 4, seed=1)[0]
    fold = fold_task(task, held)
    assert [*fold.tests] == [HELD_OUT] and fold.pool is None
    assert Counter(fold.support.labels) == {label: 3 for label in range(10)}
    assert Counter(fold.tests[HELD_OUT].labels) == {label: 1 for label in range(10)}
    assert fold.shots == task.shots


def candidates(backbone, task, names):
    configs = {name: composed(f"method={name}", "shots=4", "engine.cpu=true", "engine.workers=0") for name in names}
    return find_candidates(backbone, task, configs)


def test_candidates_know_what_they_compute(backbone, task):
    found = {one.method: one for one in candidates(backbone, task, ["coop", "vpt", "bitfit", "taskres", "zero_shot"])}
    assert [*found] == ["zero_shot", "taskres", "coop", "vpt", "bitfit"]  # on features first, then by published figures
    assert [one.cheap for one in found.values()] == [True, True, False, False, False]
    assert [one.images_a_step for one in found.values()] == [0, 0, 0, 4, 8]
    assert [one.new_classes for one in found.values()] == [True, False, True, True, True]


@pytest.mark.parametrize("method, more", [("coop", False), ("tpt", True), ("upl", True), ("promptkd", True)])
def test_methods_that_need_more_than_labelled_images_are_known(method, more):
    assert needs_more(composed(f"method={method}")) is more


class Clock:
    """A clock that only fits move on."""

    def __init__(self, monkeypatch, costs):
        self.now, self.fits, self.costs = 0.0, [], costs
        monkeypatch.setattr(choosing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(fold_fits, "train_and_evaluate", self.train)
        monkeypatch.setattr(choosing, "measure_image_seconds", lambda clip: 0.001)

    def train(self, config, clip, task, target, console, settings):
        name, most = config["method"]["name"], settings.max_steps
        step_seconds, best, whole = self.costs[name]
        steps = whole if most is None else min(whole, most)
        self.now += 0.1 + step_seconds * steps
        score = best * min(1.0, steps / 100) if whole else best
        self.fits.append((name, steps))
        figures = {"accuracy": {"title": "accuracy", "higher_is_better": True}}
        metrics = {"fit_seconds": step_seconds * steps, "parameters": 7, "figures": figures}
        metrics |= {"tests": {name: {"accuracy": score} for name in task.tests}}
        return SimpleNamespace(metrics=metrics, record={"plan": {"steps": steps}})


def simulated(costs):
    """Candidates whose steps take as long as `Clock` says; `measure_image_seconds` is a thousandth there."""
    return [
        Candidate(
            name,
            composed("method=coop", "shots=4") | {"method": {"name": name}},
            cheap=name.startswith("cheap"),
            images_a_step=int(1000 * seconds / 3),
        )
        for name, (seconds, *_) in costs.items()
    ]


@pytest.fixture
def simulate(monkeypatch, backbone, task):
    def run(costs, seconds):
        clock = Clock(monkeypatch, costs)
        monkeypatch.setattr(Candidate, "whole_steps", lambda self, images, shots: costs[self.method][2])
        chooser = Chooser(FoldFits(backbone, task, QUIET), Budget(seconds))
        found = simulated(costs)
        return chooser.choose(found), found, clock

    return run


COSTS = {
    "cheap": (0.0, 0.60, 0),
    "quick": (0.01, 0.70, 100),
    "good": (0.05, 0.90, 400),
    "slow": (30.0, 0.99, 400),
    "weak": (0.05, 0.50, 400),
}


def test_the_best_method_that_fits_in_the_budget_is_chosen_within_it(simulate):
    best, found, clock = simulate(COSTS, 600.0)
    assert best.method == "good" and best.most_steps is None
    assert {one.method: one.dropped for one in found}["slow"].startswith("too little time left (30 s a step)")
    assert clock.now + best.seconds_for(400) <= 600
    assert clock.fits[0][0] == "cheap"


@pytest.mark.parametrize("seconds", [3.0, 20.0, 60.0, 200.0])
def test_the_budget_is_kept(simulate, seconds):
    best, _, clock = simulate(COSTS, seconds)
    steps = COSTS[best.method][2] if best.most_steps is None else best.most_steps
    assert clock.now + 0.1 + COSTS[best.method][0] * steps <= 1.1 * seconds


def test_a_short_budget_shortens_the_last_fit(simulate):
    best, _, _ = simulate({"cheap": (0.0, 0.1, 0), "good": (0.05, 0.9, 4000)}, 60.0)
    assert best.method == "good" and 200 < best.most_steps < 1200


def test_the_better_half_goes_on_with_more_steps(simulate):
    costs = {f"method{place}": (0.1, 0.5 + 0.05 * place, 1000) for place in range(8)}
    best, found, clock = simulate(costs, 600.0)
    assert best.method == "method7"
    steps = {name: sum(count for other, count in clock.fits if other == name) for name in costs}
    assert steps["method7"] > 4 * steps["method0"] > 0
    assert {one.method: one.dropped for one in found}["method0"].startswith("behind (")


def test_what_fails_is_told_and_left_out(monkeypatch, backbone, task):
    def fail(config, *rest):
        raise UserError("it can't")

    monkeypatch.setattr(fold_fits, "train_and_evaluate", fail)
    with pytest.raises(UserError, match="no method could be tried: zero_shot: it can't; coop: it can't"):
        Chooser(FoldFits(backbone, task, QUIET), Budget(60)).choose(candidates(backbone, task, ["coop", "zero_shot"]))


def test_images_that_take_too_long_to_encode_are_told_before(backbone, task, monkeypatch):
    monkeypatch.setattr(choosing, "measure_image_seconds", lambda clip: 10.0)
    views = clipadapt.load_task("digits", shots=4, views=8)
    with pytest.raises(UserError, match=r"to encode 8 views of 40 images takes about .* went before: give minutes=\d"):
        Chooser(FoldFits(backbone, views, QUIET), Budget(0.5)).choose(candidates(backbone, views, ["zero_shot"]))


def test_a_choice_is_an_ordinary_run_that_says_how_it_was_chosen(backbone, task, tmp_path):
    choice = clipadapt.choose(backbone, task, 0.5, FEW, cpu=True, workers=0)
    rows = {row["method"]: row for row in choice.rows}
    assert {*rows} == {*FEW} and choice.policy == "cross-validation"
    best = max(row["score"] for row in choice.rows)
    assert rows[choice.method]["score"] == best
    low, high = rows[choice.method]["interval"]
    assert low < best < high
    assert choice.result.config["choice"] == {"by": "cross-validation", "among": sorted(FEW), "minutes": 0.5}
    assert choice.result.metrics["selection"].endswith("method by cross-validation")
    predictor = clipadapt.load(choice.result.save(tmp_path / "run"), device="cpu")
    assert predictor.class_names == task.class_names


def test_the_command_chooses_once(tmp_path, capsys):
    words = [f"methods=[{','.join(FEW)}]", "shots=4", "minutes=0.5", "engine.cpu=true", "engine.workers=0"]
    assert main(["choose", *words, f"output={tmp_path}"]) == 0
    first = capsys.readouterr().out
    assert "Choosing among 3 methods on 40 images, in 4 folds, in 0.5 minutes." in first
    (saved,) = (tmp_path / "choose").rglob("choice.json")
    content = json.loads(saved.read_text())["content"]
    assert f"{content['method']} is chosen" in first
    assert (saved.parent / "choice.md").read_text().count("\n| ") == 5  # head, rule and three methods
    assert main(["choose", *words, f"output={tmp_path}"]) == 0
    again = capsys.readouterr().out
    assert "Choosing" not in again and "This run is finished" in again
    fingerprint, configs = content["fingerprint"], dict.fromkeys(FEW)
    assert read(saved.parent, fingerprint, configs) == (content["method"], None)
    assert read(saved.parent, "other data", configs) is None
    saved.write_text(saved.read_text().replace(content["method"], "coop"))
    assert read(saved.parent, fingerprint, configs) is None


def test_with_one_image_a_class_the_published_accuracies_decide(tmp_path, capsys):
    words = ["choose", "methods=[zero_shot,tip_adapter_f,taskres]", "shots=1", "engine.cpu=true", "engine.workers=0"]
    assert main([*words, f"output={tmp_path}"]) == 0
    assert "tip_adapter_f is chosen by published accuracy after one shot" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["minutes=0"], "minutes=0 does not fit: it must be a number above 0"),
        (["minutes=ten"], "minutes=ten does not fit"),
        (["shots=[1,4]"], "shots=[1,4]: a method is chosen for one shots; give one value"),
        (["methods=[cop]"], "there is no method 'cop': did you mean 'coop'?"),
        (["methods=[]"], "say which methods"),
        (["foo=1"], "there is no key foo"),
        (["methods=[linear_probe]", "shots=1"], "with one image a class there is nothing to hold out"),
    ],
)
def test_what_does_not_fit_is_told(words, message, capsys, tmp_path):
    assert main(["choose", *words, "engine.cpu=true", "engine.workers=0", f"output={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


def test_what_learns_nothing_comes_first_whatever_its_name(backbone, task):
    first, *rest = candidates(backbone, task, ["linear_probe", "tip_adapter", "zero_shot", "clip_adapter"])
    assert first.method == "zero_shot" and not first.learns and all(one.learns for one in rest)


def test_a_closed_form_needs_no_steps_when_the_time_is_over(simulate):
    best, _, _ = simulate({"cheap": (0.0, 0.9, 0)}, 0.3)
    assert best.method == "cheap" and best.most_steps is None


def test_methods_solved_in_closed_form_are_tried_on_every_fold_first(simulate):
    costs = {"cheap": (0.0, 0.2, 0), "cheap2": (0.05, 0.6, 400), "cheap3": (0.0, 0.9, 0), "cheap4": (0.0, 0.5, 0)}
    best, _, clock = simulate(costs, 3.0)
    assert best.method == "cheap3"
    assert [name for name, _ in clock.fits[:12]] == ["cheap"] * 4 + ["cheap3"] * 4 + ["cheap4"] * 4


@pytest.mark.slow
def test_methods_that_label_images_themselves_can_be_named(backbone, task):
    choice = clipadapt.choose(backbone, task, 0.5, ["upl", "zero_shot"], ["engine.epochs=1"], cpu=True, workers=0)
    assert all(row["score"] is not None for row in choice.rows)
    assert repr(choice).startswith("<Choice ") and len(repr(choice)) < 100


def test_auto_is_the_method_that_is_chosen(backbone, task, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(sys.modules["clipadapt.cli.main"], "choose_method", lambda words: seen.append(words.settings))
    assert main(["method=auto", "shots=4"]) == 0
    assert main(["fit", "method=auto"]) == 0
    assert seen == [["shots=4"], []]
    monkeypatch.setattr("clipadapt.api.choose", lambda *given, **also: SimpleNamespace(result=(given, also)))
    assert clipadapt.finetune(backbone, task, "auto", cpu=True) == (
        (backbone, task),
        {"overrides": (), "config_dir": None, "console": None, "cpu": True},
    )


def test_the_api_checks_what_it_gets(backbone, task):
    with pytest.raises(SettingsError, match="minutes=-1 does not fit"):
        clipadapt.choose(backbone, task, -1)
    with pytest.raises(UserError, match="choose takes a backbone from load_backbone"):
        clipadapt.choose("tiny", task)
    with pytest.raises(UserError, match="methods=\\[\\] leaves nothing"):
        clipadapt.choose(backbone, task, methods=[])


def test_several_processes_are_refused(backbone, task, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="without torchrun"):
        clipadapt.choose(backbone, task, 1, FEW)


def test_a_folder_with_unequal_classes_is_compared_by_balanced_accuracy(backbone, tmp_path):
    for name, colour, count in (("red", "red", 12), ("blue", "blue", 2)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 40 + index), colour).save(tmp_path / "images" / name / f"{index}.png")
    unequal = clipadapt.load_task("folder", root=tmp_path / "images", shots="all", views=0)
    choice = clipadapt.choose(backbone, unequal, 0.3, ["zero_shot", "linear_probe"], cpu=True, workers=0)
    assert choice.figure == "balanced accuracy"


def test_where_every_method_learns_the_time_to_encode_is_known_before_the_first_fit(backbone, monkeypatch):
    views, fitted = clipadapt.load_task("digits", shots=4, views=8), []
    train = fold_fits.train_and_evaluate
    monkeypatch.setattr(choosing, "measure_image_seconds", lambda clip: 10.0)

    def noted(config, *rest):
        fitted.append(config["method"]["name"])
        return train(config, *rest)

    monkeypatch.setattr(fold_fits, "train_and_evaluate", noted)
    with pytest.raises(UserError, match=r"to encode 8 views of 40 images takes about .* went before"):
        Chooser(FoldFits(backbone, views, QUIET), Budget(0.5)).choose(candidates(backbone, views, ["clip_adapter"]))
    assert fitted == ["zero_shot"]


@pytest.mark.parametrize(
    "words, kept",
    [
        (["engine.cache=null"], "No scores are kept: the same command begins"),
        ([], "Images that were encoded are kept, but no scores: the same command begins the choice again"),
    ],
)
def test_a_choice_that_is_stopped_says_what_is_kept(words, kept, tmp_path, monkeypatch, capsys):
    def stop(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(fold_fits, "train_and_evaluate", stop)
    words = [*words, "methods=[zero_shot]", "shots=4", "engine.workers=0", "engine.cpu=true", f"output={tmp_path}"]
    assert main(["choose", *words]) == 130
    said = capsys.readouterr().err
    assert f"Stopped. {kept}" in said and "Finished work" not in said


def test_auto_is_no_method_of_a_list(capsys):
    for command in ("compare", "choose"):
        assert main([command, "methods=[auto]"]) == 2
        said = "auto chooses among methods, and is none of a list: clipadapt choose methods=[…] does that"
        assert capsys.readouterr().err == f"clipadapt: {said}\n"
