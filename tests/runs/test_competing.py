"""Which classes compete when a run is evaluated on data that have only some of its classes."""

import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main

COLOURS = ("red", "green", "blue")


def fill(root, *colours):
    for colour in colours:
        (root / colour).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (40, 40 + index), colour).save(root / colour / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("competing")
    task = clipadapt.load_task("folder", root=fill(place / "images", *COLOURS), shots=2, views=0)
    result = clipadapt.finetune(clipadapt.load_backbone(), task, "linear_probe", workers=0, cpu=True, cache=None)
    return result.save(place / "run")


def test_classes_of_the_data_or_of_the_run(run, tmp_path):
    some = fill(tmp_path / "some", "blue", "red")
    with pytest.warns(UserWarning, match="tested among the 2 classes of 'some': with classes=run, all 3"):
        among = clipadapt.evaluate(run, "folder", root=some)
    assert [*among["per_class"]] == ["blue", "red"] and among["images"] == 8
    whole = clipadapt.evaluate(run, "folder", root=some, classes="run")
    assert [*whole["per_class"]] == ["blue", "red"] and len(whole["confusion"]) == 3
    assert whole["accuracy"] == 1.0


def test_one_class_is_measured_among_those_of_the_run(run, tmp_path, capsys):
    one = fill(tmp_path / "one", "green")
    assert main(["evaluate", f"run={run}", "data=folder", f"data.root={one}"]) == 0
    assert "4 images" in capsys.readouterr().out
    assert len(clipadapt.evaluate(run, "folder", root=one)["confusion"]) == 3


def test_classes_that_the_run_lacks(run, tmp_path):
    others = fill(tmp_path / "others", "red", "yellow")
    with pytest.raises(clipadapt.UserError, match="the run doesn't know yellow of 'others'"):
        clipadapt.evaluate(run, "folder", root=others, classes="run")


@pytest.mark.parametrize(
    "words, message",
    [
        (["classes=run"], "classes= says which classes compete on other data: name them with data=…"),
        (["data=digits", "classes=both"], "classes='both' does not fit: data or run says which classes compete"),
    ],
)
def test_choices_that_are_none(run, capsys, words, message):
    assert main(["evaluate", f"run={run}", *words]) == 2
    assert message in capsys.readouterr().err
