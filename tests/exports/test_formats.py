"""What `clipadapt export` refuses before anything is loaded, in one sentence each."""

import pytest

import clipadapt
from clipadapt.cli.main import run
from clipadapt.errors import SettingsError, UserError
from clipadapt.exports import formats
from clipadapt.exports.formats import FORMATS, check_packages, read_options

WRONG = {
    "onnxx": ({}, "did you mean 'onnx'"),
    "onnx": ({"opsett": 18}, "did you mean 'opset'"),
    "torch": ({"opset": 18}, "format=torch has no option opset"),
}


@pytest.mark.parametrize("name", WRONG)
def test_unknown_formats_and_options(name, tmp_path):
    options, said = WRONG[name]
    with pytest.raises(SettingsError, match=said):
        clipadapt.export("no/run", name, tmp_path / "out", **options)


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("opset", "many", "a whole number"),
        ("opset", -1, "a whole number"),
        ("images", "0", "a whole number"),
        ("preprocess", "yes", "true or false"),
        ("quantize", "int4", "none or dynamic"),
    ],
)
def test_values_that_do_not_fit(key, value, wanted):
    with pytest.raises(SettingsError, match=wanted):
        read_options("onnx", {key: value})


def test_words_of_the_command_line_are_values():
    given = {"opset": "20", "preprocess": "True", "quantize": "dynamic"}
    assert read_options("onnx", given) == {"opset": 20, "preprocess": True, "quantize": "dynamic", "images": 256}
    assert read_options("torch", {"compile": False}) == {"compile": False, "images": 256}


@pytest.mark.parametrize(
    "words, said",
    [
        (["format=onnx", "out=x"], "say which run"),
        (["run=no/such/run", "format=onnx", "out=x"], "there is no"),
        (["run=tests", "out=x"], "say which format"),
        (["run=tests", "format=onnx"], "say where to"),
        (["run=tests", "format=onnx", "out=x", "opsett=1"], "did you mean 'opset'"),
        (["run=tests", "format=tensorflow", "out=x"], "there is no format"),
        (["run=tests", "format=onnx", "out=docs"], "already"),
    ],
)
def test_the_command_line_says_what_is_missing(words, said):
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match=said):
        run(["export", *words])


def test_something_in_the_way_is_told_before_a_run_is_read(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match=f"{tmp_path} is there already"):
        clipadapt.export("no/run", "classifier", tmp_path)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(UserError, match=r'format=onnx needs onnx: pip install "clipadapt\[export\]"'):
        check_packages("onnx")


def test_help_has_every_format(capsys):
    assert run(["export", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(form.title in text for form in FORMATS.values())
