"""Artifacts: what a run learned, read in another place without its data, whole and harmless whoever wrote it."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import clipadapt
from clipadapt import config
from clipadapt.checksums import dump_checked_json, dump_checked_tensors, hash_file, read_checked_json
from clipadapt.cli import main
from clipadapt.errors import UserError, WeightsError, WriteError
from clipadapt.runs.artifact import FILES, SETTINGS
from clipadapt.runs.reading import TENSORS
from clipadapt.studies.candidates import needs_more
from tests.faults.damages import DAMAGES
from tests.test_strangers_run import PLACES, TARGETS, put

QUICK = ["coop", "tip_adapter_f", "clip_lora", "tda"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of images whose name tells who wrote it."""
    root, random = tmp_path_factory.mktemp("secret_place") / "photos", np.random.default_rng(0)
    for place, count in (("train", 3), ("test", 4)):
        for name in ("moon", "lamp", "fish"):
            (root / place / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / place / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 100).save(path)
    return path


@pytest.fixture(scope="module")
def fitted(photos, tmp_path_factory):
    """Return the predictor of a method after one step."""
    task = clipadapt.load_task("folder", shots=2, root=str(photos))
    backbone, made = clipadapt.load_backbone(), {}

    def fit(method):
        if method not in made:
            options = {"cpu": True, "workers": 0, "cache": str(tmp_path_factory.mktemp("cache")), "max_steps": 1}
            made[method] = clipadapt.finetune(backbone, task, method, **options)
        return made[method]

    return fit


@pytest.fixture
def packed(fitted, tmp_path):
    """Return the folder of a method's artifact."""
    return fitted("coop").save_pretrained(tmp_path / "packed")


def elsewhere(folders, image, place):
    """Return the probabilities of an image by each artifact, computed in another process with another home."""
    code = (
        "import json, sys, clipadapt\n"
        "print(json.dumps([clipadapt.load(f, device='cpu').predict_proba(sys.argv[1]).tolist() for f in sys.argv[2:]]))"
    )
    nobody = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-c", code, str(image), *map(str, folders)]
    return json.loads(subprocess.run(words, cwd=place, env=nobody, capture_output=True, check=True).stdout)


def check_methods(methods, fitted, image, place):
    """Check that artifacts of methods answer elsewhere as the results do here, and name nothing of this machine."""
    place.joinpath("home").mkdir()
    folders = [fitted(method).save_pretrained(place / method) for method in methods]
    here = [fitted(method).predictor.predict_proba(image).tolist() for method in methods]
    assert elsewhere(folders, image, place / "home") == here
    own = [getpass.getuser(), socket.gethostname(), str(Path.home()), os.getcwd(), "secret_place", str(place), "/tmp"]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        for path in folder.iterdir():
            found = path.read_bytes()
            assert not [text for text in own if len(text) > 4 and text.encode() in found], path


def test_it_answers_elsewhere_and_names_nothing_of_this_machine(fitted, image, tmp_path):
    check_methods(QUICK, fitted, image, tmp_path)


@pytest.mark.slow
def test_every_method_does(fitted, image, tmp_path):
    methods = [name for name in config.complete_methods() if not needs_more(config.compose([f"method={name}"]))]
    assert len(methods) > 25
    check_methods(methods, fitted, image, tmp_path)


def test_the_settings_say_all_that_is_known(packed, fitted):
    content, result = read_checked_json(packed / SETTINGS), fitted("coop")
    assert content["format"] == 1 and content["settings"]["method"] == result.config["method"]
    assert content["record"]["class_names"] == result.record["class_names"]
    assert content["record"]["backbone"] == result.record["backbone"]
    assert content["preprocessing"]["size"] == [32, 32] and len(content["preprocessing"]["mean"]) == 3
    assert content["metrics"]["tests"] == result.metrics["tests"]
    assert load_file(packed / TENSORS).keys() == result.tensors.keys()


def test_the_model_card_is_what_the_hub_reads(packed, fitted):
    from huggingface_hub import ModelCard

    card, result = ModelCard.load(packed / "README.md"), fitted("coop")
    assert card.data.library_name == "clipadapt" and "coop" in card.data.tags and card.data.license is None
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found["accuracy"] == pytest.approx(result.metrics["accuracy"], abs=1e-4)
    assert all(name in card.text for name in result.record["class_names"])


def test_other_classes_are_packed(fitted, image, tmp_path):
    other = fitted("coop").predictor.for_classes(["a moon", "a [lamp](x)"])
    other.save_pretrained(tmp_path / "other")
    found = clipadapt.load(tmp_path / "other", device="cpu")
    assert found.class_names == other.class_names
    assert torch.equal(found.predict_proba(image), other.predict_proba(image))
    card = (tmp_path / "other" / "README.md").read_text()
    assert r"a \[lamp\](x)" in card and "wasn't measured" in card
    again = found.save_pretrained(tmp_path / "again")
    assert clipadapt.load(again, device="cpu").class_names == other.class_names


def test_commands_take_it(packed, image, photos, capsys):
    words = [f"run={packed}"]
    assert main(["predict", *words, f"images={image}"]) == main(["show", *words]) == 0
    assert main(["evaluate", *words, "data=folder", f"data.root={photos}"]) == 0
    assert "which images it was learned from isn't known here" in " ".join(capsys.readouterr().err.split())
    capsys.readouterr()
    assert main(["evaluate", *words]) == 2
    assert "don't say where the images of 'photos' are" in " ".join(capsys.readouterr().err.split())


def test_weights_of_a_file_are_asked_for(tmp_path, photos, image):
    weights = tmp_path / "my_weights.pt"
    torch.save(clipadapt.load_backbone(pretrained=None).model.state_dict(), weights)
    backbone = clipadapt.load_backbone(pretrained=str(weights))
    task = clipadapt.load_task("folder", shots=2, root=str(photos))
    result = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    folder = result.save_pretrained(tmp_path / "packed")
    assert str(tmp_path) not in (folder / SETTINGS).read_text()
    with pytest.raises(WeightsError, match=r"whose weights were the file my_weights\.pt of whoever packed it"):
        clipadapt.load(folder)
    found = clipadapt.load(folder, device="cpu", pretrained=str(weights))
    assert torch.equal(found.predict_proba(image), result.predictor.predict_proba(image))
    words = {"data": "folder", "root": str(photos)}
    figures = clipadapt.evaluate(folder, **words, pretrained=str(weights))
    assert figures["accuracy"] == result.metrics["accuracy"]
    with pytest.raises(WeightsError, match=r"whose weights were the file my_weights\.pt"):
        clipadapt.evaluate(folder, **words)
    with pytest.raises(WeightsError, match="was learned on another backbone"):
        clipadapt.load(folder, pretrained="embedded")


def test_a_folder_in_the_way_is_kept(packed, fitted, tmp_path):
    (tmp_path / "file").write_text("mine")
    for taken in (packed, tmp_path / "file"):
        with pytest.raises(UserError, match="is there already: choose another place"):
            fitted("coop").save_pretrained(taken)
    assert (tmp_path / "file").read_text() == "mine" and clipadapt.load(packed).class_names
    (tmp_path / "empty").mkdir()
    assert fitted("coop").save_pretrained(tmp_path / "empty").joinpath(SETTINGS).exists()


def test_nothing_is_packed_into_a_run(fitted, tmp_path):
    run = fitted("coop").save(tmp_path / "run")
    with pytest.raises(UserError, match="is inside the run"):
        fitted("coop").save_pretrained(run / "deep/packed")
    assert not (run / "deep").exists()


def test_the_card_has_the_names_for_clip_that_are_asked_for(fitted, tmp_path):
    other = fitted("coop").predictor.for_classes({"A1": ["tabby", "tomcat"], "A2": ["puppy"]})
    card = (other.save_pretrained(tmp_path / "packed") / "README.md").read_text()
    assert "A1 (tabby, tomcat)" in card and "A2 (puppy)" in card


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_leaves_nothing(name, fitted, tmp_path, monkeypatch):
    def write(path, content, really=clipadapt.files.write_atomically):
        if path.name == name:
            raise WriteError(f"{path} can't be written (No space left on device)")
        really(path, content)

    monkeypatch.setattr("clipadapt.runs.artifact.write_atomically", write)
    with pytest.raises(WriteError):
        fitted("coop").save_pretrained(tmp_path / "packed")
    assert not [*tmp_path.iterdir()]


def change(folder, edit):
    """Change what an artifact's settings hold, as a stranger could, with the right checksum."""
    content = read_checked_json(folder / SETTINGS)
    edit(content)
    (folder / SETTINGS).write_text(dump_checked_json(content))


def put_settings(place, value, content):
    put(content["settings"], place, value)


@pytest.mark.parametrize("place", [place for place in PLACES if not place.startswith("method.test_time")])
def test_a_strangers_artifact_calls_nothing_that_it_names(place, packed, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reckless.py").write_text("open('ran', 'w').close()")
    for target in ("reckless.Wiper", TARGETS[PLACES.index(place) % len(TARGETS)]):
        value = {"_target_": target, "path": str(tmp_path / "kept")}
        change(packed, partial(put_settings, place, value))
        with pytest.raises(UserError, match=place.split(".")[0]) as caught:
            clipadapt.load(packed)
        assert str(packed / SETTINGS) in str(caught.value) and "\n" not in str(caught.value)
    assert "reckless" not in sys.modules and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(format=2, made_by="clipadapt 9.1.0"), 'format 2: install "clipadapt>=9.1.0" to read it'),
        (lambda c: c.update(format=2, made_by="x; rm"), "format 2: install a newer clipadapt to read it"),
        (lambda c: c.update(format="1"), "it has no format"),
        (lambda c: c.pop("settings"), "it has no settings"),
        (lambda c: c.update(record=[]), "it has no record"),
        (lambda c: c["record"].pop("class_names"), "class_names"),
        (lambda c: c["record"].update(support_shape=[1, -1, 128]), "support_shape"),
        (lambda c: c["metrics"].pop("tests"), "tests"),
        (lambda c: c["settings"].pop("method"), "method is missing"),
        (lambda c: c["settings"]["backbone"].update(name="hf-hub:a/b"), "is an address"),
        (lambda c: c["settings"].update(config_dir="/etc", allowed_targets=["os"], shots="${oc.env:HOME}"), "shots"),
        (lambda c: c["record"].update(for_classes=[]), "class"),
        (lambda c: c["record"].update(for_classes=[1, 2]), "class"),
        (lambda c: c["record"].update(for_classes=5), "class"),
        (lambda c: c["record"].update(versions={"clipadapt": None}), "versions"),
        (lambda c: c["record"].update(task="a\x1b[2J"), "task: it holds the invisible character U+001B"),
        (lambda c: c["record"].update(for_classes=["a\u202eb", "c"]), "the invisible character U+202E"),
        (lambda c: c["settings"]["method"].update(title="\x07"), "method.title holds the invisible character U+0007"),
    ],
)
def test_settings_of_another_kind_are_told(edit, said, packed, monkeypatch):
    change(packed, edit)
    with pytest.raises(UserError) as caught:
        clipadapt.load(packed)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": "0", "content": {}}', "{" * 100_000, '{"a": ' * 90_000])
def test_a_file_that_is_no_artifact_is_told(text, packed):
    (packed / SETTINGS).write_text(text)
    with pytest.raises(UserError, match=r"config\.json is damaged .*: get the artifact again"):
        clipadapt.load(packed)


@pytest.mark.parametrize("name", [SETTINGS, TENSORS])
def test_every_damage_is_told(name, packed, image, tmp_path):
    right = clipadapt.load(packed, device="cpu").predict_proba(image).tolist()
    for number, damage in enumerate(DAMAGES.values()):
        copy = shutil.copytree(packed, tmp_path / str(number))
        damage(copy / name)
        try:
            assert clipadapt.load(copy, device="cpu").predict_proba(image).tolist() == right  # white space of JSON
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert name == SETTINGS


def test_numbers_beyond_all_measure_are_told(packed, image):
    tensors = {name: torch.full_like(value, 1e30) for name, value in load_file(packed / TENSORS).items()}
    (packed / TENSORS).write_bytes(dump_checked_tensors(tensors, {}))
    change(packed, lambda content: content.update(tensors=hash_file(packed / TENSORS)))
    found = clipadapt.load(packed, device="cpu")
    with pytest.raises(UserError, match="the answers aren't finite numbers"):
        found.predict_proba(image)


def test_settings_that_name_a_file_here_are_not_packed(fitted, tmp_path):
    result = fitted("zero_shot")
    made = clipadapt.runs.result.Result(**{**vars(result), "config": {**result.config, "seed": str(tmp_path)}})
    with pytest.raises(UserError, match="names a file of this machine"):
        made.save_pretrained(tmp_path / "packed")
