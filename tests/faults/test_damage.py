"""Every file of a run damaged in every way: the right answer or one sentence, never another answer or a traceback."""

import functools
import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import clipadapt
from clipadapt import config
from clipadapt.backbone.open_clip import CLIP
from clipadapt.cli import main
from clipadapt.errors import UserError, WriteError
from clipadapt.runs import directory
from clipadapt.runs.directory import NEEDED, RunDirectory
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.manifest import MANIFEST
from clipadapt.runs.result import read_result
from clipadapt.runs.targets import EvaluationTarget
from clipadapt.runs.train import train_and_evaluate
from tests.engine.tasks import same, split, task
from tests.faults.damages import DAMAGES, copy_run
from tests.test_api import FEW_DRAWINGS

WORDS = ["data=drawn", *FEW_DRAWINGS, "engine.max_steps=2", "engine.workers=0", "engine.cpu=true", "shots=2"]
METHODS = ["coop", "tip_adapter_f", "clip_lora"]
USUAL = functools.cache(config.compose)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the directory of a method's finished run, also evaluated on other data."""

    @functools.cache
    def finished(method):
        output = tmp_path_factory.mktemp(method)
        assert main([*WORDS, f"method={method}", f"output={output}"]) == 0
        (result,) = output.rglob("result.json")
        return result.parent

    return finished


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 100).save(path)
    return path


@pytest.fixture
def readers(image, monkeypatch, capsys):
    """Return what reads a finished run, each with a function that returns its answer."""
    monkeypatch.setattr(config, "compose", USUAL)

    def command(*words):
        capsys.readouterr()
        code, said = main([*words]), capsys.readouterr()
        if code == 0:
            return said.out
        assert code == 2 and "Traceback" not in said.err
        raise UserError(said.err.strip().removeprefix("clipadapt: "))

    return {
        "load": lambda run: clipadapt.load(run, device="cpu").predict_proba(image).tolist(),
        "predict": lambda run: command("predict", f"run={run}", f"images={image}"),
        "evaluate": lambda run: {**clipadapt.evaluate(run), "seconds": 0},
        "evaluate on the command line": lambda run: command("evaluate", f"run={run}"),
    }


def outcome(read, run, right):
    """Return whether a reader gives the right answer or one sentence."""
    try:
        found = read(run)
    except UserError as error:
        message = " ".join(str(error).split())
        assert str(run) in message and "  " not in message and len(message) < 1000, message
        return "sentence"
    assert found == right, "another answer"
    return "right"


def check_method(run, readers, place, damages):
    """Damage each file in each way, check every reader, and return how often each outcome was."""
    counts = Counter()
    fresh = copy_run(run, place)
    right = {name: read(fresh) for name, read in readers.items()}
    files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    for file, damage in itertools.product(files, damages):
        damaged = copy_run(run, place)
        DAMAGES[damage](damaged / file)
        for name, read in readers.items():
            found = outcome(read, damaged, right[name])
            assert found == "sentence" or file.name == MANIFEST, (file, damage, name)  # its last byte is a line's end
            counts[found] += 1
    return counts, len(files)


def test_a_damaged_file_is_told(runs, tmp_path):
    run = runs("tip_adapter_f")
    files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    assert {*map(str, files)} > {*NEEDED, MANIFEST, "predictions.json", "pictures/learning.png"}
    for file, damage in itertools.product(files, ["middle bit 0", "half", "gone", "a folder"]):
        damaged = copy_run(run, tmp_path / "run")
        DAMAGES[damage](damaged / file)
        with pytest.raises(UserError, match=f"{damaged}"):
            clipadapt.load(damaged)


def test_one_other_bit_is_no_other_answer(runs, readers, tmp_path):
    damaged = copy_run(runs("tip_adapter_f"), tmp_path / "run")
    DAMAGES["late bit 0"](damaged / "adaptation.safetensors")
    said = {name: outcome(read, damaged, None) for name, read in readers.items()}
    assert {*said.values()} == {"sentence"} and len(said) == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_damage_of_every_file(method, runs, readers, tmp_path):
    counts, files = check_method(runs(method), readers, tmp_path / "run", DAMAGES)
    print(f"{method}: {files} files, {dict(counts)}")
    assert counts.total() == files * len(DAMAGES) * len(readers)


@pytest.mark.parametrize(("file", "damage"), [("config.yaml", "half"), (MANIFEST, "gone"), ("record.json", "a folder")])
def test_the_same_command_says_what_is_damaged(file, damage, runs, tmp_path, capsys):
    run = runs("tip_adapter_f")
    output = run.parents[3]
    place = copy_run(output, tmp_path / "output")
    damaged = place / run.relative_to(output)
    DAMAGES[damage](damaged / file)
    assert main([*WORDS, "method=tip_adapter_f", f"output={place}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert damaged.name in said and "Traceback" not in said


def test_figures_on_other_data_have_a_checksum(runs, tmp_path):
    run, quiet = copy_run(runs("tip_adapter_f"), tmp_path / "run"), Console(quiet=True)
    target = EvaluationTarget("again", data=RunDirectory(run).config()["data"])
    right = FinishedRun(run).evaluate_targets([target], quiet)
    (file,) = (run / "transfer").glob("*.json")
    whole = file.read_bytes()
    for name, damage in DAMAGES.items():
        if file.is_dir():
            shutil.rmtree(file)
        file.unlink(missing_ok=True)
        file.write_bytes(whole)
        damage(file)
        if name in ("gone", "a dangling link"):
            continue  # the run is evaluated there again
        try:
            assert FinishedRun(run).evaluate_targets([target], quiet) == right and name == "a byte short"
        except UserError as error:
            assert "delete it, and the run is evaluated there again" in str(error)
    shutil.rmtree(file, ignore_errors=True)
    file.unlink(missing_ok=True)
    assert FinishedRun(run).evaluate_targets([target], quiet) == right


LEARNING = ["shots=2", "engine.epochs=4", "engine.cpu=true", "engine.workers=0", "engine.cache=null"]
LEARNING += ["engine.batch_size=4", "engine.checkpoint_seconds=0"]


def fit(folder, method, stop=None, *words):
    """Fit a small task in a folder; stop after an epoch."""
    save = RunDirectory.save_checkpoint

    def interrupted(directory, progress):
        save(directory, progress)
        if progress.epoch == stop:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "save_checkpoint", interrupted)
        settings = USUAL((*LEARNING, f"method={method}", *words))
        data = replace(task(), validation=split([0, 1, 2], seed=2), validation_indices=[0, 1, 2])
        given = CLIP.load("tiny", "embedded"), data, RunDirectory(folder), Console(quiet=True)
        return train_and_evaluate(json.loads(json.dumps(settings)), *given)


def check_resumed(method, tmp_path, damages, places=([3], [2], [3, 2])):
    """Damage the newest, the older and both checkpoints, go on, and count the outcomes."""
    right, counts = fit(tmp_path / "whole", method), Counter()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", method, 3)
    epochs = RunDirectory(tmp_path / "stopped").checkpoints.epochs()
    assert epochs == [3, 2]
    for damage, which in itertools.product(damages, places):
        target = RunDirectory(copy_run(tmp_path / "stopped", tmp_path / "damaged"))
        for epoch in which:
            DAMAGES[damage](target.checkpoints.path(epoch))
        try:
            found = fit(target.path, method)
        except UserError as error:
            assert which == [3, 2] and "rerun=true begins again" in str(error)
            found = fit(target.path, method, None, "rerun=true")
            counts["sentence"] += 1
        counts["right"] += 1
        assert same(found.tensors, right.tensors) and found.history == right.history
        assert not [*target.path.glob("checkpoint*")]
    return counts


@pytest.mark.filterwarnings("ignore:a checkpoint is damaged")
def test_a_run_goes_on_from_the_checkpoint_that_is_whole(tmp_path):
    assert check_resumed("coop", tmp_path, ["middle bit 0"], [[3]]) == {"right": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a checkpoint is damaged")
@pytest.mark.parametrize("method", METHODS)
def test_every_damage_of_every_checkpoint(method, tmp_path):
    counts = check_resumed(method, tmp_path, DAMAGES)
    print(f"{method}: {dict(counts)}")
    assert counts["right"] == 3 * len(DAMAGES)


@pytest.mark.parametrize("written", [0, 1, 4])
def test_saving_over_a_finished_run_leaves_it_whole_until_the_end(written, tmp_path, monkeypatch):
    result, run, write = fit(tmp_path / "run", "zero_shot"), tmp_path / "run", directory.write_atomically
    old, left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}, iter(range(written))

    def fill_the_disk(path, content):
        if next(left, None) is None:
            raise WriteError("full")
        write(path, content)

    monkeypatch.setattr(directory, "write_atomically", fill_the_disk)
    with pytest.raises(WriteError):
        replace(result, metrics={**result.metrics, "seconds": 5}).save(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == old
    monkeypatch.undo()
    replace(result, metrics={**result.metrics, "seconds": 5}).save(run)
    assert read_result(run).metrics["seconds"] == 5
    assert {path.name for path in tmp_path.iterdir()} == {"run"} and {*old} == {
        p for p in run.rglob("*") if p.is_file()
    }


def test_leftovers_of_a_killed_run_are_removed(runs, tmp_path, capsys):
    run = runs("tip_adapter_f")
    output = run.parents[3]
    place = copy_run(output, tmp_path / "output")
    again = place / run.relative_to(output)
    names = {path.relative_to(again) for path in again.rglob("*")}
    left = [".record.json.4711.part", "pictures/.learning.png.4711.part", "checkpoint-3.safetensors"]
    for name in left:
        (again / name).write_text("left")
    old = again.with_name(f".{again.name}.old")
    old.mkdir()
    clipadapt.load(again)
    assert all((again / name).exists() for name in left)  # readers leave what may be another's
    assert main([*WORDS, "method=tip_adapter_f", f"output={place}"]) == 0
    assert {path.relative_to(again) for path in again.rglob("*")} == names and not old.exists()
    assert "finished" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*NEEDED, MANIFEST])
def test_a_file_that_may_not_be_read_is_told(name, runs, tmp_path, monkeypatch):
    run, opened = copy_run(runs("tip_adapter_f"), tmp_path / "run"), Path.open

    def denied(path, *arguments, **options):
        if path == run / name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UserError, match=f"{name} can't be read .Permission denied.: get a whole copy"):
        clipadapt.load(run)
