"""Names for CLIP beside the labels of the data, one or several for a class: from the settings to the answers."""

import csv
import io
import json
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import clipadapt
from clipadapt.cli.main import main
from clipadapt.data.class_words import read_words
from clipadapt.data.sources import folder
from clipadapt.engine.checks import note_one_name
from clipadapt.interfaces import format_templates
from clipadapt.runs.directory import RECORD
from clipadapt.tasks import Classifier, zero_shot_classifier
from tests.small import TASK, TEMPLATES, adaptation, close, golden, images, task_on

LABELS = ["cup", "SKU-1", "SKU-2"]
WORDS = {"SKU-1": ["red mug", "crimson cup", "red beaker"], "SKU-2": ["blue bowl"]}
ENGINE = {"cpu": True, "workers": 0, "cache": None}


def picture(*values):
    """An image of noise, another one for other values."""
    return Image.fromarray(np.random.default_rng(values).integers(0, 256, (8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three class folders with two images to learn from and two to test on."""
    root = tmp_path_factory.mktemp("words") / "photos"
    for place, label in enumerate(LABELS):
        for split in ("train", "test"):
            for index in range(2):
                path = root / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(place, index, split == "test").save(path)
    return root


def fitted(photos, method="tip_adapter", words=WORDS, **more):
    task = clipadapt.load_task("folder", root=str(photos), shots=1, views=0, class_names=words)
    return clipadapt.finetune(clipadapt.load_backbone(), task, method, **ENGINE, **more)


@pytest.fixture(scope="module")
def saved(photos, tmp_path_factory):
    """A finished run whose classes have names for CLIP."""
    return fitted(photos).save(tmp_path_factory.mktemp("runs") / "run")


def by_hand(clip, templates, names):
    """The unit mean of unit text features over all templates and names, `[D]`."""
    prompts = [template.replace("{}", name) for name in names for template in templates]
    return functional.normalize(functional.normalize(clip.text_features([prompts])[0], dim=-1).mean(dim=0), dim=-1)


def test_class_weights_are_averages_over_all_prompts_of_all_names():
    clip, task = golden(), task_on()
    task.words = {"cat": ["kitten", "tom", "puss"], "T-shirt": ["shirt", "tee"]}
    found = zero_shot_classifier(clip, task).class_embeddings()
    names = [task.words.get(name, [name.replace("_", " ")]) for name in task.class_names]
    close(found, torch.stack([by_hand(clip, TEMPLATES, some) for some in names]))
    assert (found[0] - by_hand(clip, TEMPLATES, ["kitten"])).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["learned_class_weights", "task_residual"])
def test_raw_text_is_averaged_raw(name):
    clip, task = golden(), task_on()
    task.words = {"cat": ["kitten", "tom"]}
    built = adaptation(name, task=task)
    prompts = format_templates(TEMPLATES, ["kitten", "tom"])
    expected = clip.text_features(prompts).float().flatten(0, 1).mean(dim=0)
    head = Classifier(clip, built, task.class_names)
    close(head.class_embeddings()[0], expected)


def test_learned_contexts_take_the_first_name():
    clip, task = golden(), task_on()
    head = {}
    for words in ({"cat": ["kitten", "tom"]}, {"cat": ["kitten"]}):
        task.words = words
        head[len(words["cat"])] = Classifier(clip, adaptation("context", task=task), task.class_names)
    assert torch.equal(head[1](images(2)), head[2](images(2)))


def test_answers_have_the_labels_with_the_names_beside(photos, saved):
    rows = [*csv.DictReader(io.StringIO((saved / "predictions.csv").read_text()))]
    assert [row["truth"] for row in rows] == [label for label in LABELS for _ in range(2)]
    assert {row["answer"] for row in rows} <= {*LABELS} and list(rows[0])[-2:] == ["truth_words", "answer_words"]
    assert [row["truth_words"] for row in rows[::2]] == ["", "red mug|crimson cup|red beaker", "blue bowl"]
    record = json.loads((saved / RECORD).read_text())
    assert record["class_names"] == LABELS and record["words"] == WORDS


def test_a_loaded_run_answers_as_the_one_that_was_fitted(photos, saved):
    paths = sorted(map(str, photos.glob("test/*/*.png")))
    result, loaded = fitted(photos), clipadapt.load(saved, device="cpu")
    assert loaded.class_names == LABELS and loaded.words == WORDS
    assert torch.equal(result.predictor.predict_proba(paths), loaded.predict_proba(paths))
    rows = [*csv.DictReader(io.StringIO((saved / "predictions.csv").read_text()))]
    assert loaded.predict([row["image"] for row in rows]) == [row["answer"] for row in rows]


def test_predict_shows_the_names(photos, saved, capsys):
    images = f"images={photos / 'test' / 'SKU-1'}"
    assert main(["predict", f"run={saved}", images, "format=csv"]) == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert {row["class"]: row["words"] for row in rows}.items() <= {
        **{label: "|".join(names) for label, names in WORDS.items()},
        "cup": "",
    }.items()
    assert main(["predict", f"run={saved}", images, "format=json"]) == 0
    for row in json.loads(capsys.readouterr().out):
        assert row.get("words") == WORDS.get(row["class"]) and [*row["probabilities"]] == LABELS


def test_mistakes_have_the_labels(saved):
    assert main(["mistakes", f"run={saved}"]) == 0
    rows = [*csv.DictReader(io.StringIO((saved / "mistakes.csv").read_text()))]
    assert rows and {row["label_1"] for row in rows} <= {*LABELS}
    assert all(row["truth_words"] == "|".join(WORDS.get(row["truth"], ())) for row in rows)


def test_a_run_knows_its_classes_on_other_photos(photos, saved):
    """The labels are those of the run, and so are the names for CLIP, unless the other data have names of their own."""
    own = clipadapt.evaluate(saved)
    assert clipadapt.evaluate(saved, "folder", root=str(photos))["accuracy"] == own["accuracy"]
    with pytest.raises(clipadapt.UserError, match="no class folder 'owl'"):
        clipadapt.evaluate(saved, "folder", root=str(photos), class_names={"owl": "owl"})


def test_other_names_change_what_the_data_are(photos):
    def mark(words):
        return clipadapt.load_task("folder", root=str(photos), shots=2, class_names=words).fingerprint

    single, several = {"SKU-1": "red mug"}, {"SKU-1": ["red mug", "crimson cup"]}
    assert mark(single) == mark({"SKU-1": ["red mug"]}) and len({*map(mark, (None, single, several))}) == 3


def test_for_classes_takes_several_names(saved, photos):
    paths = sorted(map(str, photos.glob("test/*/*.png")))
    task = clipadapt.load_task("folder", root=str(photos), shots=2, views=0)
    plain = clipadapt.finetune(clipadapt.load_backbone(), task, "zero_shot", **ENGINE).predictor
    named = plain.for_classes({"cup": ["mug", "cup"], "bowl": "bowl"})
    assert named.class_names == ["cup", "bowl"] and named.words == {"cup": ["mug", "cup"]}
    text = torch.stack([by_hand(plain.model.clip, ["a photo of a {}."], names) for names in (["mug", "cup"], ["bowl"])])
    close(named.model.class_embeddings(), text)
    assert set(named.predict(paths)) <= {"cup", "bowl"}
    with pytest.raises(clipadapt.UserError, match="the classes 'cup' and 'mug' have the same name for CLIP, 'mug'"):
        plain.for_classes({"cup": ["mug", "cup"], "mug": "mug"})
    with pytest.raises(clipadapt.UserError, match="'cup' has no name for CLIP"):
        plain.for_classes({"cup": [], "mug": "mug"})


def test_artifacts_and_pickles_have_the_names(saved, photos, tmp_path):
    paths = sorted(map(str, photos.glob("test/*/*.png")))
    run = clipadapt.load(saved, device="cpu")
    named = run.for_classes({label: ["red mug", "cup"] if label == "cup" else label for label in LABELS})
    assert not torch.equal(named.predict_proba(paths), run.predict_proba(paths))
    for place, one in enumerate((run, named)):
        packed = clipadapt.load(one.save_pretrained(tmp_path / str(place)), device="cpu")
        for other in (packed, pickle.loads(pickle.dumps(one))):
            assert other.words == one.words and torch.equal(other.predict_proba(paths), one.predict_proba(paths))


def test_a_notice_says_that_one_name_is_taken():
    task = task_on()
    task.words = {"cat": ["kitten", "tom"], "T-shirt": ["shirt"]}
    with pytest.warns(UserWarning, match="stand before one name of each class: of cat it takes the first"):
        note_one_name(adaptation("context", task=task), task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_one_name(adaptation("zero_shot", task=task), task)
        task.words = {"cat": ["kitten"]}
        note_one_name(adaptation("context", task=task), task)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.yaml", "SKU-1: [red mug, crimson cup, red beaker]\nSKU-2: blue bowl\n"),
        ("names.json", json.dumps(WORDS)),
        ("names.csv", "class,name\nSKU-1,red mug\nSKU-1,crimson cup\nSKU-2,blue bowl\nSKU-1,red beaker\n"),
    ],
)
def test_a_file_of_names(file, content, photos, tmp_path):
    (tmp_path / file).write_text(content)
    assert read_words(str(tmp_path / file)) == WORDS
    assert folder(str(photos), class_names=str(tmp_path / file)).words == WORDS


def test_a_table_of_images_takes_names_by_label_or_in_a_list(photos):
    pairs = [(str(path), path.parent.name) for path in sorted(photos.glob("train/*/*.png"))]
    task = clipadapt.load_task(pairs, shots=1, class_names=WORDS)
    assert task.class_names == LABELS and task.words == WORDS
    numbered = [(path, LABELS.index(label)) for path, label in pairs]
    task = clipadapt.load_task(numbered, shots=1, class_names=[["red mug", "crimson mug"], "bowl", ["cup"]])
    assert task.class_names == ["red mug", "bowl", "cup"] and task.words == {"red mug": ["red mug", "crimson mug"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"SKU-1": "mug", "SKU-2": ["bowl", "mug"]}, "the classes 'SKU-1' and 'SKU-2' have the same name .*'mug'"),
        ({"SKU-1": ["mug", "cup"]}, "the classes 'cup' and 'SKU-1' have the same name for CLIP, 'cup'"),
        ({"SKU-1": ["mug", "mug"]}, "the class 'SKU-1' has the name 'mug' twice"),
        ({"SKU-1": []}, r"'SKU-1' has no name for CLIP in \[\]: give text"),
        ({"SKU-1": ["mug", " "]}, "'SKU-1' has no name for CLIP"),
        ({"SKU-7": "mug"}, "has no class folder 'SKU-7' for data.class_names: did you mean"),
        ("nowhere.csv", "there is no table 'nowhere.csv'"),
    ],
)
def test_names_that_are_refused(words, message, photos):
    with pytest.raises(clipadapt.UserError, match=message):
        folder(str(photos), class_names=words)


def test_a_table_of_names_needs_its_columns(tmp_path):
    (tmp_path / "names.csv").write_text("folder,words\nSKU-1,red mug\n")
    with pytest.raises(clipadapt.UserError, match="has no column 'class': names of classes are in the columns"):
        read_words(str(tmp_path / "names.csv"))


def test_a_run_from_before_is_read(photos, saved, tmp_path):
    """Its record calls classes by their names for CLIP, and so do its answers."""
    run = fitted(photos, words={"SKU-1": "red mug"})
    named = run.record | {"class_names": ["cup", "red mug", "SKU-2"]}
    del named["words"]
    old = replace(run, record=named).save(tmp_path / "old")
    assert clipadapt.load(old, device="cpu").class_names == ["cup", "red mug", "SKU-2"]
    again = clipadapt.evaluate(old)
    assert again["accuracy"] == run.metrics["accuracy"] and "red mug" in again["per_class"]


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "left\u202eright", "a\u2028b"])
def test_names_that_are_not_shown_as_they_are(name, photos):
    clip = clipadapt.load_backbone()
    for words in ({"SKU-1": name}, {"SKU-1": ["mug", name]}):
        with pytest.raises(clipadapt.UserError, match=r"the class name .* can't be used: it holds the invisible"):
            clipadapt.load_task("folder", root=str(photos), shots=1, class_names=words)
    with pytest.raises(clipadapt.UserError, match="invisible"):
        zero_shot_classifier(clip, TASK, ["dog", name])


def test_letters_that_join_others_are_names():
    assert read_words({"क्‍ष": "क्‍ष"}) == {"क्‍ष": ["क्‍ष"]}
