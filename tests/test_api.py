"""The Python API as the README has it, and that the command line gives the same numbers."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import clipadapt
from clipadapt import config as config_of
from clipadapt.cli import main
from clipadapt.errors import UserError
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.run import run
from tests.manifests import renew_manifest

MEASURED_ANEW = {"seconds", "fit_seconds", "peak_memory_mb"}
SETTINGS = ["shots=2", "seed=1", "engine.epochs=2", "engine.workers=0", "engine.cpu=true"]
FEW_DRAWINGS = ["data.train_per_class=3", "data.validation_per_class=1", "data.test_images=12"]


def numbers(metrics):
    return {key: value for key, value in metrics.items() if key not in MEASURED_ANEW}


def command(output, *words):
    """Run a command line; the run directory it leaves."""
    assert main([*SETTINGS, f"output={output}", *words]) == 0
    (found,) = output.rglob("result.json")
    return found.parent


def content(directory):
    """What a run found out."""
    metrics = json.loads((directory / "result.json").read_text())
    history = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return load_file(directory / "adaptation.safetensors"), numbers(metrics), history


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1:] == other[1:]


@pytest.fixture(scope="module")
def backbone():
    return clipadapt.load_backbone("tiny")


@pytest.fixture(scope="module")
def digits():
    return clipadapt.load_task("digits", shots=2, seed=1)


@pytest.fixture(scope="module")
def result(backbone, digits):
    overrides = ["method.adaptation.n_ctx=4"]
    return clipadapt.finetune(backbone, digits, method="coop", epochs=2, cpu=True, workers=0, overrides=overrides)


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "pets"
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def test_metrics(result):
    metrics = result.metrics
    for key in ("accuracy", "zero_shot_accuracy", "calibration_error", "zero_shot_calibration_error"):
        assert 0 <= metrics[key] <= 1
        assert metrics[key] == metrics["tests"]["test"][key]
    assert metrics["images"] == 797
    assert set(metrics["per_class"]) == set(metrics["zero_shot_per_class"]) == set(result.record["class_names"])
    assert metrics["accuracy"] == pytest.approx(np.trace(metrics["confusion"]) / 797)
    assert metrics["parameters"] == 4 * 128 == result.tensors["context"].numel()
    assert 0 < metrics["share"] < 1 and metrics["processes"] == 1 and metrics["seconds"] > 0
    assert metrics["selection"].startswith("none")
    assert len(result.history) == 2


def test_saved_directory(result, saved):
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "record.json", "result.json", "metrics.jsonl", "adaptation.safetensors", "predictions.json"),
        *("manifest.json", "predictions.csv"),
        *("pictures/confusion.png", "pictures/per_class.png", "pictures/learning.png"),
    }
    assert result.save(saved) == saved
    record = json.loads((saved / "record.json").read_text())
    assert len(record["support_indices"]) == 20
    assert record["backbone"]["name"] == "tiny" and record["backbone"]["fingerprint"]


def test_loaded_classifier_takes_paths_images_and_tensors(saved, digits, tmp_path):
    classifier = clipadapt.load(saved)
    images = [digits.tests["test"][index][0] for index in range(70)]
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    pixels = torch.stack([classifier.model.clip.transform(image) for image in images])
    probabilities = classifier.predict_proba(images)
    assert probabilities.shape == (70, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(70))
    for other in (paths, pixels, list(pixels), [str(path) for path in paths], iter(paths)):
        assert torch.equal(classifier.predict_proba(other), probabilities)
    expected = [digits.class_names[index] for index in probabilities.argmax(dim=1)]
    assert classifier.predict(images) == expected
    for single in (images[0], paths[0], str(paths[0]), pixels[0]):
        assert classifier.predict(single) == expected[:1]


def test_loaded_classifier_is_as_accurate_as_the_run_says(saved, result, digits):
    classifier = clipadapt.load(saved, device="cpu")
    test = digits.tests["test"]
    answers = classifier.predict(test.images)
    right = sum(answer == digits.class_names[label] for answer, label in zip(answers, test.labels, strict=True))
    assert right / len(test) == pytest.approx(result.metrics["accuracy"], abs=2e-3)


def test_images_that_cannot_be_used(saved, tmp_path):
    classifier = clipadapt.load(saved)
    (tmp_path / "text.jpg").write_text("no image")
    wrong = [[], tmp_path / "absent.jpg", tmp_path / "text.jpg", torch.zeros(3, 8, 8), [3], np.zeros((2, 8, 8, 3))]
    for images in wrong:
        with pytest.raises(UserError):
            classifier.predict(images)


def test_other_class_names(saved, digits):
    classifier = clipadapt.load(saved)
    other = classifier.for_classes(["one", "circle", "zero"])
    assert other.class_names == ["one", "circle", "zero"]
    ours = classifier.predict_proba(digits.support[0][0])[0]
    theirs = other.predict_proba(digits.support[0][0])[0]
    assert theirs[0] / theirs[2] == pytest.approx((ours[1] / ours[0]).item(), rel=1e-3)


@pytest.mark.parametrize("given", ["cat", [], [1, 2], None, 5, ["cat", ""], [["cat"]], b"cat"])
def test_class_names_that_are_none(saved, given):
    with pytest.raises(clipadapt.UserError, match=r"class names must be a list of texts, as in \['cat', 'dog'\], and "):
        clipadapt.load(saved).for_classes(given)


def test_class_names_one_after_the_other(saved):
    assert clipadapt.load(saved).for_classes(iter(["one", "zero"])).class_names == ["one", "zero"]


def test_command_line_and_api_give_the_same_numbers(result, tmp_path):
    directory = command(tmp_path, "method.adaptation.n_ctx=4")
    assert_same((result.tensors, numbers(result.metrics), result.history), content(directory))


def test_the_same_command_twice_in_two_empty_directories(tmp_path):
    words = ["method=visual_prompting", "data=drawn", *FEW_DRAWINGS, "task.views=null"]
    one, other = (command(tmp_path / name, *words) for name in ("one", "other"))
    assert_same(content(one), content(other))
    assert one.relative_to(tmp_path / "one") == other.relative_to(tmp_path / "other")


def test_a_finished_run_is_shown_and_computed_again_only_if_asked(tmp_path, capsys):
    words = ["data=drawn", *FEW_DRAWINGS]
    directory = command(tmp_path, *words)
    first = content(directory)
    time_of = (directory / "result.json").stat().st_mtime_ns
    command(tmp_path, *words)
    assert "finished (rerun=true" in capsys.readouterr().out
    assert (directory / "result.json").stat().st_mtime_ns == time_of
    command(tmp_path, *words, "rerun=true")
    assert (directory / "result.json").stat().st_mtime_ns > time_of
    assert_same(first, content(directory))
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluated_again_it_is_as_good(tmp_path, precision):
    directory = command(tmp_path, "data=drawn", *FEW_DRAWINGS, f"engine.precision={precision}")
    metrics = json.loads((directory / "result.json").read_text())
    again = clipadapt.evaluate(directory)
    assert again == {key: metrics[key] for key in again}


class Stop(Exception):
    pass


@pytest.mark.parametrize("words", [["task.views=2"], ["task.views=null", "engine.optimizer.lr=0.1"]])
def test_a_run_that_is_stopped_goes_on_to_the_same_result(tmp_path, monkeypatch, words):
    words = ["data=drawn", *FEW_DRAWINGS, "engine.epochs=4", "engine.checkpoint_seconds=0", *words]
    whole = command(tmp_path / "whole", *words)
    save, epochs = RunDirectory.save_checkpoint, []

    def interrupted(directory, progress):
        save(directory, progress)
        epochs.append(progress.epoch)
        if progress.epoch in (1, 3) and epochs.count(progress.epoch) == 1:
            raise Stop

    monkeypatch.setattr(RunDirectory, "save_checkpoint", interrupted)
    for _ in range(2):
        with pytest.raises(Stop):
            command(tmp_path / "stopped", *words)
    (config,) = (tmp_path / "stopped").rglob("config.yaml")
    with pytest.raises(UserError, match="no finished run"):
        clipadapt.load(config.parent)
    stopped = command(tmp_path / "stopped", *words)
    assert epochs == [1, 2, 3, 4]
    assert_same(content(whole), content(stopped))
    assert not [*stopped.glob("checkpoint*")]


def test_a_stopped_run_does_not_go_on_with_other_images(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "images"
    for name in ("red", "blue"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(folder / name / f"{number}.png")
    words = ["data=folder", f"data.root={folder}", "shots=2", "engine.epochs=2", "engine.checkpoint_seconds=0"]
    save = RunDirectory.save_checkpoint

    def interrupted(directory, progress):
        save(directory, progress)
        raise Stop

    monkeypatch.setattr(RunDirectory, "save_checkpoint", interrupted)
    with pytest.raises(Stop):
        command(tmp_path / "runs", *words)
    monkeypatch.undo()
    for path in folder.rglob("*.png"):
        Image.open(path).resize((64, 64)).save(path)
    assert main([*SETTINGS, f"output={tmp_path / 'runs'}", *words]) == 2
    assert "have changed since it was stopped" in " ".join(capsys.readouterr().err.split())
    command(tmp_path / "runs", *words, "rerun=true")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_result(tmp_path):
    words = ["shots=1", "engine.epochs=30", "engine.workers=0", "engine.cpu=true", "engine.checkpoint_seconds=0"]
    words += ["data=drawn", *FEW_DRAWINGS]
    whole = command(tmp_path / "whole", *words)
    line = [sys.executable, "-m", "clipadapt", *SETTINGS, f"output={tmp_path / 'killed'}", *words]
    root = str(Path(clipadapt.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "killed").rglob("checkpoint-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").rglob("result.json"))
    assert_same(content(whole), content(command(tmp_path / "killed", *words)))


def test_nan_is_told_with_the_place_of_the_last_good_state(tmp_path, capsys):
    words = ["data=drawn", *FEW_DRAWINGS, "engine.optimizer.lr=1e38", "engine.epochs=3"]
    assert main([*SETTINGS, f"output={tmp_path}", *words]) == 2
    message = capsys.readouterr().err
    assert "became" in message and "at step" in message and "Traceback" not in message
    (checkpoint,) = tmp_path.rglob("checkpoint-*.safetensors")
    assert str(checkpoint) in message.replace("\n", "")
    progress = RunDirectory(checkpoint.parent).checkpoints.load(torch.device("cpu"))
    assert progress.epoch >= 1 and progress.state["adaptation"]["context"].isfinite().all()


def test_another_backbones_run_is_refused(result, tmp_path):
    directory = result.save(tmp_path / "run")
    record = json.loads((directory / "record.json").read_text())
    record["backbone"]["fingerprint"] = "0123456789abcdef"
    (directory / "record.json").write_text(json.dumps(record))
    renew_manifest(directory)
    with pytest.raises(UserError, match="learned on another backbone"):
        clipadapt.load(directory)


def test_an_incomplete_directory_is_refused(result, tmp_path):
    directory = result.save(tmp_path / "run")
    (directory / "result.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        clipadapt.load(directory)
    with pytest.raises(UserError, match="there is no run directory"):
        clipadapt.load(tmp_path / "nowhere")


def test_saving_over_something_else_is_refused(result, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        result.save(tmp_path)


@pytest.mark.parametrize(
    "override", ["shots=4", "seed=2", "data=drawn", "task.views=3", "+backbone=RN50", "backbone.seed=1"]
)
def test_overrides_that_belong_to_the_task_or_the_backbone(backbone, digits, override):
    with pytest.raises(UserError, match="belongs to the task or the backbone"):
        clipadapt.finetune(backbone, digits, overrides=[override])


def test_mistakes(backbone, digits):
    with pytest.raises(UserError, match="coop"):
        clipadapt.finetune(backbone, digits, method="coopp")
    with pytest.raises(UserError, match="epochs"):
        clipadapt.finetune(backbone, digits, epochs="many")
    with pytest.raises(UserError, match="digits"):
        clipadapt.load_task("digit")
    with pytest.raises(UserError, match="root"):
        clipadapt.load_task("folder", rot="images")
    with pytest.raises(UserError, match="ViT-B-16"):
        clipadapt.load_backbone("ViT-B-61", pretrained=None)
    with pytest.raises(UserError, match="say which weights"):
        clipadapt.load_backbone("EVA02-B-16")


def test_drawn_task(backbone, tmp_path):
    task = clipadapt.load_task("drawn", name="shapes", shots=1, test_images=12)
    assert task.name == "drawn-shapes" and task.shots == 1 and len(task.support) == len(task.class_names)
    result = clipadapt.finetune(backbone, task, method="zero_shot", cpu=True, workers=0)
    assert list(result.metrics["tests"]) == list(task.tests) and len(task.tests) > 1
    assert result.metrics["accuracy"] == result.metrics["zero_shot_accuracy"]
    assert (result.metrics["parameters"], result.tensors, result.history) == (0, {}, [])
    assert clipadapt.load(result.save(tmp_path / "run")).predict(task.support[0][0])


def test_folder_of_jpegs(backbone, jpegs, tmp_path):
    task = clipadapt.load_task("folder", root=jpegs, shots=1, seed=3, templates=['a "photo" of \\ a {}.'])
    assert task.class_names == ["cat", "dog"] and task.views == 8 and task.templates == ['a "photo" of \\ a {}.']
    result = clipadapt.finetune(backbone, task, epochs={1: 2, 4: 9}, cpu=True, workers=0, method="clip_adapter")
    assert len(result.history) == 2
    classifier = clipadapt.load(result.save(tmp_path / "run"))
    assert set(classifier.predict(sorted(jpegs.rglob("*.jpg")))) <= {"cat", "dog"}
    again = clipadapt.evaluate(tmp_path / "run")
    assert again["accuracy"] == result.metrics["accuracy"]


@pytest.mark.parametrize("method", ["visual_prompting", "clip_adapter", "zero_shot", "coop"])
def test_every_method_runs(backbone, method, tmp_path):
    task = clipadapt.load_task("drawn", shots=1, test_images=12)
    result = clipadapt.finetune(backbone, task, method=method, epochs=2, cpu=True, workers=0)
    assert bool(result.tensors) == (method != "zero_shot")
    assert len(result.history) == (2 if result.tensors else 0)
    loaded = clipadapt.load(result.save(tmp_path / "run")).model.adaptation.state_dict()
    assert all(torch.equal(value, result.tensors[name]) for name, value in loaded.items())


def test_another_adaptation_beside_trains_both(tmp_path):
    directory = command(tmp_path, "data=drawn", *FEW_DRAWINGS, "+adaptation@method.also.pixels=pixel_frame")
    assert directory.parent.name == "coop+pixels"
    start = command(
        tmp_path / "start", "data=drawn", *FEW_DRAWINGS, "+adaptation@method.also.pixels=pixel_frame", "engine.epochs=0"
    )
    before, after = content(start)[0], content(directory)[0]
    assert {name.split(".")[1] for name in after} == {"adaptation", "pixels"}
    assert all(not torch.equal(before[name], after[name]) for name in after)
    assert clipadapt.load(directory).predict(Image.new("RGB", (40, 40)))


@pytest.mark.slow
def test_a_large_backbone_with_random_weights_on_jpegs(jpegs, tmp_path):
    backbone = clipadapt.load_backbone("ViT-B-16", pretrained=None)
    task = clipadapt.load_task("folder", root=str(jpegs), shots=1)
    result = clipadapt.finetune(backbone, task, epochs=1, cpu=True, workers=0)
    assert len(result.history) == 1 and result.metrics["images"] == 6
    assert result.tensors["context"].shape == (16, 512)
    assert result.record["backbone"]["pretrained"] is None


def test_a_cache_that_cant_be_written_is_told_before_anything_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    config = config_of.compose([f"engine.cache={tmp_path / 'file' / 'cache'}", f"output={tmp_path}"])
    with pytest.raises(UserError, match=r"can't be kept in .*engine\.cache=DIR or CLIPADAPT_CACHE=DIR"):
        run(config, tmp_path / "run", load=lambda *given: pytest.fail("loaded"))
    assert not (tmp_path / "run").exists()


def test_an_empty_name_is_no_cache(monkeypatch):
    monkeypatch.setenv("CLIPADAPT_CACHE", "")
    with pytest.raises(UserError, match=r"engine\.cache= does not fit"):
        config_of.compose([])


def test_a_folder_with_nothing_but_test_images_is_evaluated_on(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / "test" / name).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((8, 8), 90).convert("RGB").save(tmp_path / "photos" / "test" / name / f"{number}.png")
    task = clipadapt.load_task("folder", root=tmp_path / "photos")
    assert not len(task.support) and len(task.tests["test"]) == 4
    backbone = clipadapt.load_backbone()
    result = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    run = result.save(tmp_path / "run")
    found = clipadapt.evaluate(run, "folder", root=str(tmp_path / "photos"))
    assert found["images"] == 4 and found["accuracy"] == result.metrics["accuracy"]
    with pytest.raises(UserError, match="has no images to learn from"):
        clipadapt.finetune(backbone, task, "coop", cpu=True, workers=0, cache=None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("foo", r"there is no backbone 'foo': known are "),
        ("Vit-b-16", r"there is no backbone 'Vit-b-16': did you mean 'ViT-B-16'\?"),
        ("RN50x4", r"say which weights of backbone 'RN50x4' you want: pretrained=… \(openai; None for random ones\)"),
        (5, r"name must be text, as in load_backbone\('tiny'\), and 5 is not"),
    ],
)
def test_backbones_that_are_not_there(name, said):
    with pytest.raises(UserError, match=said):
        clipadapt.load_backbone(name)


@pytest.mark.parametrize("device", ["nope", 5, "meta", "cuda:99"])
def test_devices_that_are_not_there(device, tmp_path):
    with pytest.raises(UserError, match=f"device={device!r} can't be used: "):
        clipadapt.load(tmp_path, device=device)


@pytest.mark.parametrize("overrides", ["engine.epochs=5", 5, [5], {"engine.epochs": 5}, None])
def test_overrides_that_are_no_list_of_texts(overrides):
    for call in (
        lambda: clipadapt.finetune(
            clipadapt.load_backbone(), clipadapt.load_task("digits", shots=1), "coop", overrides
        ),
        lambda: clipadapt.compare("zero_shot", overrides=overrides),
    ):
        with pytest.raises(UserError, match="overrides must be a list of texts"):
            call()


@pytest.mark.parametrize("value", [["digits"], None, 5, {"digits"}, lambda: 0])
def test_names_of_files_that_are_no_names(value):
    with pytest.raises(UserError, match="the first argument of load_task must be the name of a source"):
        clipadapt.load_task(value)
    with pytest.raises(UserError, match="there is no kind"):
        clipadapt.load_task("digits", kind=value)


def test_numbers_of_numpy_are_numbers():
    assert clipadapt.load_task("digits", shots=np.int64(2)).shots == 2


def test_a_result_predicts_as_its_directory_does(result, saved, digits):
    images = [digits.tests["test"].images[index] for index in range(8)]
    again = clipadapt.load(saved, device="cpu")
    assert torch.equal(result.predictor.predict_proba(images), again.predict_proba(images))
    assert result.predict(images) == again.predict(images)
    assert len(result.predict(images, reject=0.1)) == 8


def test_a_result_without_its_backbone_says_how_to_predict(result):
    there = pickle.loads(pickle.dumps(result))
    assert there.metrics == result.metrics and there.clip is None
    with pytest.raises(clipadapt.UserError, match=r"this result has no backbone: clipadapt\.load"):
        there.predict([])


def test_a_figure_that_is_none(result):
    with pytest.raises(clipadapt.UserError, match=r"^there is no figure 'acuracy': did you mean 'accuracy'\?"):
        result.metrics["acuracy"]
