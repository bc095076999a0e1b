"""A run that leaves broken images out is the run on a folder without them."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.data.drawn import TASKS, draw_labelled
from clipadapt.errors import UserError
from tests.broken import BROKEN, break_in, cut

NAMES = TASKS["shapes"].class_names[:3]
SPLITS = {"train": 3, "val": 2, "test": 300}
SHOTS = 4 + len(BROKEN)
"""More than a class has, so that all are taken in their order: the sample doesn't depend on the broken ones."""
LEFT_OUT = {"support": len(BROKEN), "validation": 1, "test": len(BROKEN)}
TESTED = 3 * SPLITS["test"] + len(BROKEN)
TIMES = ("seconds", "fit_seconds", "peak_memory_mb")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A sound folder, and the same with broken files in every split: 1 % of the test set."""
    base = tmp_path_factory.mktemp("images")
    for root in ("clean", "mixed"):
        for split, count in SPLITS.items():
            for label, name in enumerate(NAMES):
                (base / root / split / name).mkdir(parents=True)
                for number in range(count):
                    image = Image.fromarray(draw_labelled("shapes", split, label + 12 * number)[0])
                    image.save(base / root / split / name / f"image{number}.png")
    break_in(base / "mixed" / "train" / NAMES[0])
    cut(base / "mixed" / "val" / NAMES[1] / "cut.png")
    break_in(base / "mixed" / "test" / NAMES[2])
    return base


def words(root, *more):
    return ["data=folder", f"data.root={root}", f"shots={SHOTS}", "engine.epochs=2", "engine.cpu=true", *more]


@pytest.mark.filterwarnings("ignore:.*fewer than")
def test_a_run_without_broken_images_is_the_clean_folders(folders, tmp_path, capsys):
    common = ["method=clip_adapter", "engine.workers=0"]
    mixed = words(folders / "mixed", *common, f"output={tmp_path / 'mixed'}")
    assert main(mixed) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"{sum(LEFT_OUT.values())} images can't be used" in said[0] and len(said) == 1 + sum(LEFT_OUT.values())
    assert not (tmp_path / "mixed").exists()

    assert main([*mixed, "task.skip_broken=true"]) == 0
    told = f"note: mixed: {len(BROKEN)} of {TESTED} images are broken, and left out of 'test'"
    assert told in capsys.readouterr().err
    assert main(words(folders / "clean", *common, f"output={tmp_path / 'clean'}")) == 0
    results, records = [], []
    for name in ("mixed", "clean"):
        (found,) = (tmp_path / name).rglob("result.json")
        results.append(json.loads(found.read_text()))
        records.append(json.loads((found.parent / "record.json").read_text()))
    assert [key for key in results[0] if results[0][key] != results[1][key] and key not in TIMES] == []
    assert results[0]["images"] == 3 * SPLITS["test"] and len(results[0]) > 8
    assert records[1]["left_out"] == {}
    assert {name: len(told) for name, told in records[0]["left_out"].items()} == LEFT_OUT
    assert len(records[0]["support_indices"]) == len(records[1]["support_indices"]) == 9
    capsys.readouterr()
    predict = ["predict", f"run={found.parent}", f"images={folders / 'mixed' / 'train'}", "format=csv"]
    assert main(predict) == 2
    said = capsys.readouterr()
    header, *rows = csv.reader(said.out.splitlines())
    assert header[0] == "image" and header[-1] == "error" and len(rows) == len(BROKEN) + 9
    assert sum(bool(row[1]) for row in rows) == 9 and all(bool(row[1]) != bool(row[-1]) for row in rows)
    assert "leave them out with skip_broken=true" in said.err and "pipe.png" in said.err
    assert main([*predict, "skip_broken=true"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1 + 9
    assert f"{len(BROKEN)} of {len(BROKEN) + 9} images are broken, and left out: " in said.err
    assert main([*predict, "skip_broken=yes"]) == 2
    assert "skip_broken=yes does not fit: it must be true or false" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*(fewer than|left out)")
@pytest.mark.slow
def test_in_python_too(folders, tmp_path):
    options = {"root": str(folders / "mixed"), "shots": SHOTS}
    with pytest.raises(UserError, match="images can't be used"):
        clipadapt.load_task("folder", **options)
    task = clipadapt.load_task("folder", skip_broken=True, **options)
    assert len(task.support) == 9 and {name: len(told) for name, told in task.left_out.items()} == LEFT_OUT
    backbone = clipadapt.load_backbone("tiny")
    result = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    assert result.record["left_out"] == task.left_out
    directory = result.save(tmp_path / "run")
    assert clipadapt.evaluate(directory)["accuracy"] == result.metrics["accuracy"]
    with pytest.raises(UserError, match="images can't be used"):
        clipadapt.evaluate(directory, "folder", root=options["root"])
    again = clipadapt.evaluate(directory, "folder", root=options["root"], skip_broken=True)
    assert again["images"] == 3 * SPLITS["test"] and again["accuracy"] == result.metrics["accuracy"]


def test_a_labelled_pool_is_looked_at_where_pseudo_labels_are_taken_from_it(folders, tmp_path):
    root = shutil.copytree(folders / "clean", tmp_path / "photos")
    task = clipadapt.load_task("folder", root=str(root), shots=1)
    for place, path in enumerate(task.pool.images.items):
        if place not in task.support_indices:
            Path(path).write_text("no image")
    backbone = clipadapt.load_backbone("tiny")
    with pytest.raises(UserError, match="6 images can't be used"):
        clipadapt.finetune(backbone, task, "upl", cpu=True, workers=0, cache=None)
