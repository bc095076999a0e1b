"""`clipadapt mistakes`: every wrong answer on the test images, with the nearest images that were learned from."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from clipadapt.checksums import read_checked_json
from clipadapt.cli import main
from clipadapt.runs.finished import FinishedRun
from clipadapt.runs.manifest import write_manifest

WORDS = ["data=drawn", "data.train_per_class=3", "data.validation_per_class=1", "data.test_images=36", "shots=2"]
REST = ["method=zero_shot", "engine.workers=0", "engine.cpu=true", "engine.cache=null"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("mistakes")
    assert main([*WORDS, *REST, f"output={place}"]) == 0
    (result,) = place.rglob("result.json")
    return result.parent


def test_all_mistakes_are_shown_with_their_neighbours(run, capsys, clip):
    assert main(["mistakes", f"run={run}"]) == 0
    said = capsys.readouterr().out
    predictions = json.loads((run / "predictions.json").read_text())
    wrong = {
        (name, str(index), one["class_names"][label], one["class_names"][answer])
        for name, one in predictions.items()
        for index, (label, answer) in enumerate(zip(one["labels"], one["adapted"], strict=True))
        if label != answer
    }
    rows = list(csv.DictReader((run / "mistakes.csv").read_text().splitlines()))
    assert wrong and {(row["test"], row["image"], row["truth"], row["answer"]) for row in rows} == wrong
    assert f"{len(wrong)} mistakes" in said and "mistakes.html" in said
    assert (run / "mistakes.html").read_text().count('class="card"') == len(wrong)
    task = FinishedRun(run).task(None, None)
    images = [*task.support.images, task.tests[rows[0]["test"]].images[int(rows[0]["image"])]]
    with torch.no_grad():
        *support, own = normalize(clip.image.run(torch.stack([clip.transform(image) for image in images])), dim=-1)
    cosines = torch.stack(support) @ own
    assert float(rows[0]["cosine_1"]) == pytest.approx(float(cosines.max()), abs=1e-5)
    assert rows[0]["label_1"] == task.class_names[task.support.labels[int(cosines.argmax())]]


@pytest.mark.slow
def test_an_image_is_not_its_own_neighbour(tmp_path):
    for name, colour in (("cat", 0), ("dog", 90)):
        for number in range(3):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (colour, 40 * number, 120)).save(path)
    words = ["data=folder", f"data.root={tmp_path / 'pets'}", "shots=all", f"output={tmp_path / 'out'}"]
    assert main([*words, *REST]) == 0
    (result,) = tmp_path.rglob("result.json")
    assert main(["mistakes", f"run={result.parent}"]) == 0
    rows = list(csv.DictReader((result.parent / "mistakes.csv").read_text().splitlines()))
    assert rows and all(row["image"] not in (row[f"nearest_{k}"] for k in (1, 2, 3)) for row in rows)


def changed(run, tmp_path, name, change):
    """A copy of a run with other content in a JSON file."""
    copy = shutil.copytree(run, tmp_path / "copy")
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_text(json.dumps(content))
    return copy


def test_a_run_without_test_images(run, tmp_path, capsys):
    copy = changed(run, tmp_path, "result.json", lambda result: result["tests"].clear())
    assert main(["mistakes", f"run={copy}"]) == 2
    assert "has no test images, so that its mistakes aren't known" in capsys.readouterr().err


def test_data_that_have_changed(run, tmp_path, capsys):
    copy = changed(run, tmp_path, "record.json", lambda record: record.update(fingerprint="0" * 16))
    write_manifest(copy, read_checked_json(copy / "manifest.json")["files"], {})
    assert main(["mistakes", f"run={copy}"]) == 2
    assert "have changed since the run, so that its mistakes can't be shown" in capsys.readouterr().err
