"""Values that a Python call gives to settings: taken as they are, whatever text they are."""

import numpy as np
import pytest
import torch

import clipadapt
from clipadapt import config
from clipadapt.errors import UserError
from clipadapt.plain_yaml import dump_plain_yaml, read_plain_yaml

DIFFICULT = [
    "a[1]",
    "it's",
    'say "no"',
    "$HOME",
    "${seed}",
    "${oc.env:HOME}",
    "\\${seed}",
    "a,b",
    "a=b",
    "{a: b}",
    "ü ",
]


@pytest.mark.parametrize("text", DIFFICULT)
def test_text_is_taken_as_it_is(text):
    names, root = [text, f"{text}, too"], f"/pictures/{text}"
    given = {"data": "unlabelled", "data.root": root, "data.class_names": names, "engine.cache": text}
    composed = config.compose(values=given)
    assert (composed["data"]["root"], composed["data"]["class_names"]) == (root, names)
    assert composed["engine"]["cache"] == text


@pytest.mark.parametrize("text", ["a[1]", "it's, $HOME", "a=b ${seed}"])
def test_a_folder_of_any_name_is_loaded(text, tmp_path):
    from PIL import Image

    for name in ("one, two", "{three}"):
        (tmp_path / text / name).mkdir(parents=True)
        for shade in range(3):
            Image.new("RGB", (8, 8), (40 * shade,) * 3).save(tmp_path / text / name / f"{shade}.png")
    task = clipadapt.load_task("folder", shots=1, root=tmp_path / text, views=2, skip_broken=True)
    assert (set(task.class_names), task.views) == ({"one, two", "{three}"}, 2)
    assert {"views": 2, "skip_broken": True}.items() <= task.origin["task"].items()


def test_references_see_what_is_given(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "_target_: clipadapt.data.tables.csv\nroot: ???\nimages: ${.root}.images\npath: path\nlabel: label\n"
        "split: null\nclass_names: null\ntemplates: null\n"
    )
    found = config.compose((), tmp_path, {"data": "mine", "data.root": "/t/${x}"})["data"]
    assert (found["root"], found["images"]) == ("/t/${x}", "/t/${x}.images")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": "digit's"}, "there is no data 'digit's'"),
        ({"data": "${seed}", "data.root": "x"}, "there is no data '${seed}'"),
        ({"engine.epoch": 3}, "no key engine.epoch for Settings: did you mean 'epochs'?"),
        ({"engine.epochs": "3"}, "engine.epochs='3' does not fit"),
        ({"engine.accumulate": 2}, "it is called engine.gradient_accumulation_steps now"),
        ({"seed.x": 2}, "there is no key seed.x: seed is no table"),
        ({"method": "zero_shot", "engine.epochs": {}}, "engine.epochs={} does not fit"),
        ({"method": np.zeros(0)}, "there is no method '[]'"),
    ],
)
def test_what_does_not_fit_is_refused(values, said):
    with pytest.raises(UserError) as caught:
        config.compose(values=values)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [(np.zeros(0),), ("tiny", np.zeros(2)), (["tiny"], None)])
def test_names_of_another_type_are_refused(arguments):
    with pytest.raises(UserError):
        clipadapt.load_backbone(*arguments)


@pytest.mark.parametrize("value", [np.zeros((2, 2)), torch.tensor(2), np.zeros(()), [object()], 1j, {"a": b"b"}, "x"])
def test_numbers_of_another_type_are_refused(value):
    with pytest.raises(UserError, match=r"shots=.* does not fit"):
        clipadapt.compare("zero_shot", "drawn", value, np.int64(1))


@pytest.mark.parametrize("device", ["", "no_such", np.zeros(0), torch.zeros(2), object()])
def test_devices_of_another_type_are_refused(device, tmp_path):
    with pytest.raises(UserError, match=r"device=.* can't be used"):
        clipadapt.load(tmp_path, device=device)


def test_a_key_is_given_once():
    with pytest.raises(UserError, match=r"engine\.epochs is given twice: by itself, and as engine\.epochs=5"):
        config.compose(["engine.epochs=5"], values={"engine.epochs": 3})


@pytest.mark.parametrize("text", DIFFICULT)
def test_settings_of_any_text_are_read_as_they_were_written(text, tmp_path):
    table = {"data": {"root": f"/pictures/{text}", "class_names": {text: "cat"}}, "numbers": [1, 1.5, None, True]}
    (tmp_path / "config.yaml").write_text(dump_plain_yaml(table))
    assert read_plain_yaml(tmp_path / "config.yaml") == table


def test_an_interpolation_that_is_not_escaped_is_refused(tmp_path):
    for text in ("${oc.env:HOME}", r"\\\\${oc.env:HOME}", "$${x}"):
        (tmp_path / "config.yaml").write_text(f"a: '{text}'\n")
        with pytest.raises(UserError, match="an interpolation"):
            read_plain_yaml(tmp_path / "config.yaml")


def test_a_number_in_quotes_is_told():
    for shots in ("4", "0"):
        with pytest.raises(UserError) as caught:
            config.compose(values={"shots": shots})
        assert str(caught.value).startswith(f"shots={shots!r} does" if shots == "4" else "shots=0 does not fit")
    with pytest.raises(UserError, match=r"^shots='4' does not fit: .* or all; it is text: without quotes, 4, it fits$"):
        clipadapt.load_task("digits", shots="4")


def test_a_run_on_a_folder_of_any_name_is_read_again(tmp_path):
    from PIL import Image

    root = tmp_path / "${oc.env:HOME} [1]"
    for name in ("cat", "${x}"):
        (root / name).mkdir(parents=True)
        for shade in range(4):
            Image.new("RGB", (8, 8), (40 * shade, 9, len(name))).save(root / name / f"{shade}.png")
    task = clipadapt.load_task("folder", shots=1, root=root)
    result = clipadapt.finetune(clipadapt.load_backbone(), task, "zero_shot", cpu=True, workers=0)
    run = result.save(tmp_path / "run")
    assert clipadapt.load(run).class_names == task.class_names
    assert clipadapt.evaluate(run)["tests"] == result.metrics["tests"]
    assert result.save(run) == run  # the same settings
