"""Images without labels, from the command line and from Python: pseudo-labels, a teacher, a test set or none."""

import json

import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.data.drawn import TASKS, draw_labelled
from clipadapt.errors import UserError

NAMES = TASKS["shapes"].class_names[:3]
SETTINGS = ["shots=1", "seed=1", "engine.epochs=1", "engine.workers=0", "engine.cpu=true"]
TEACHERS = "method.objective.teachers=[{name:tiny,pretrained:embedded}]"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nine drawings of three classes in one folder."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    folder.mkdir()
    for number in range(3):
        for label in range(3):
            draw("train", number, label).save(folder / f"{label + 3 * number}.png")
    return folder


@pytest.fixture
def tested(photos, tmp_path):
    """The same and a test folder."""
    for path in photos.iterdir():
        (tmp_path / "tested" / "some").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tested" / "some" / path.name).write_bytes(path.read_bytes())
    for label, name in enumerate(NAMES):
        (tmp_path / "tested" / "test" / name).mkdir(parents=True)
        draw("test", 0, label).save(tmp_path / "tested" / "test" / name / "0.png")
    return tmp_path / "tested"


def draw(split, number, label):
    return Image.fromarray(draw_labelled("shapes", split, label + 12 * number)[0])


def data(root):
    return ["data=unlabelled", f"data.root={root}", f"data.class_names=[{','.join(NAMES)}]", "task.views=0"]


def run(output, *words):
    """Run a command line; the run directory it leaves."""
    assert main([*SETTINGS, f"output={output}", *words]) == 0
    (found,) = output.rglob("result.json")
    return found.parent


def test_without_a_test_set(photos, tmp_path, capsys):
    directory = run(tmp_path, *data(photos))
    said = capsys.readouterr().out
    assert (
        "There is no test set: accuracy can't be measured." in said and "most confident" in said and "right" not in said
    )
    assert directory.parent.parent.parent.name == "unlabelled-photos"
    assert [path.name for path in (directory / "pictures").iterdir()] == ["learning.png"]
    result = json.loads((directory / "result.json").read_text())
    assert result["tests"] == {} and "accuracy" not in result
    record = json.loads((directory / "record.json").read_text())
    assert record["pseudo_labels"]["labels"] == [0, 1, 2] and record["pseudo_labels"]["right"] is None
    assert len(record["support_indices"]) == 3 and record["pseudo_labels"]["choice"] == "confident"
    assert set(clipadapt.load(directory).predict(sorted(photos.iterdir()))) <= {*NAMES}
    with pytest.raises(UserError, match=r"'photos' has no test set to measure on: put a folder test"):
        clipadapt.evaluate(directory)
    main([*SETTINGS, f"output={tmp_path}", *data(photos)])
    assert "There is no test set" in capsys.readouterr().out


def test_with_a_test_set(tested, tmp_path):
    directory = run(tmp_path / "out", *data(tested), "method=upl")
    result = json.loads((directory / "result.json").read_text())
    assert result["images"] == 3 and 0 <= result["accuracy"] <= 1
    assert clipadapt.evaluate(directory)["accuracy"] == result["accuracy"]
    assert len(json.loads((directory / "record.json").read_text())["support_indices"]) == 3


def test_from_python(photos, tmp_path):
    task = clipadapt.load_task("unlabelled", root=photos, class_names=NAMES, shots=2, views=0)
    backbone = clipadapt.load_backbone("tiny")
    result = clipadapt.finetune(backbone, task, "clip_adapter", epochs=1, cpu=True, workers=0)
    assert result.metrics["tests"] == {} and result.metrics["parameters"] > 0
    assert len(result.record["pseudo_labels"]["confidences"]) == len(result.record["support_indices"]) <= 6
    assert len(result.history) == 1


def test_a_method_may_hide_labels(tmp_path, capsys):
    few = ["data=drawn", "data.train_per_class=2", "data.validation_per_class=1", "data.test_images=12"]
    directory = run(tmp_path, *few, "method=promptkd", TEACHERS)
    assert "% of these labels are right" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    record = json.loads((directory / "record.json").read_text())
    assert record["support_indices"] == list(range(24)) and record["validation_indices"] == []
    assert 0 < record["pseudo_labels"]["right"] <= 1 and record["pseudo_labels"]["choice"] == "all"
    assert record["teachers"] == [record["backbone"]]
    assert record["plan"]["kept"].endswith("features of teacher tiny")
    assert json.loads((directory / "result.json").read_text())["accuracy"] >= 0


def test_labels_that_spread_over_images_without_labels(photos, tested, tmp_path):
    directory = run(tmp_path / "out", *data(tested), "method=zlap_inductive")
    assert 0 <= json.loads((directory / "result.json").read_text())["accuracy"] <= 1
    found = clipadapt.load(directory)
    assert found.model.adaptation.images.shape[0] == 9 and found.model.adaptation.received.any()
    assert set(found.predict(sorted(photos.iterdir()))) <= {*NAMES}


def test_mistakes(capsys):
    wrong = {
        "method.pseudo_labels=sure": "it must be one of confident, all or null",
        "method.pseudo_labels=confidant": "did you mean 'confident'?",
        "method.objective.teachers=[{nam:tiny}]": "a list of a table of one of name, pretrained to text or null",
        "method.objective.temperature=0": "above 0",
    }
    for word, said in wrong.items():
        assert main(["method=promptkd", word]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["data=unlabelled", "data.class_names=[cat,dog]"]) == 2
    assert "data.root has no value yet" in capsys.readouterr().err
