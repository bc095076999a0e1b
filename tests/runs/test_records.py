"""A finished run whose files are whole but hold something else, as a stranger could write them."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import clipadapt
from clipadapt.cli import main
from clipadapt.errors import UserError
from clipadapt.runs import records
from clipadapt.runs.learned import misfit
from clipadapt.runs.reading import RunReader
from tests.manifests import renew_manifest
from tests.runs.test_directory import FIGURES, HISTORY, RECORD, RESULT
from tests.test_api import FEW_DRAWINGS

WORDS = ["data=drawn", *FEW_DRAWINGS, "engine.max_steps=1", "engine.workers=0", "engine.cpu=true", "shots=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("records")
    assert main([*WORDS, "method=clip_adapter", f"output={output}"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def refused(run, capsys):
    """Check that every reader refuses the run as it is now, with its manifest, and return what they say."""

    def refusal():
        renew_manifest(run)
        with pytest.raises(UserError) as caught:
            clipadapt.load(run, device="cpu")
        message = str(caught.value)
        Image.new("RGB", (32, 32)).save(run.parent / "image.png")
        for words in (["evaluate", f"run={run}"], ["predict", f"run={run}", f"images={run.parent / 'image.png'}"]):
            capsys.readouterr()
            assert main(words) == 2
            assert " ".join(message.split()) in " ".join(capsys.readouterr().err.split())
        assert "\n" not in message
        return message

    return refusal


def test_as_it_was_it_is_taken(run):
    renew_manifest(run)
    assert clipadapt.load(run).class_names


CHANGES = {
    "is missing": lambda tensors, name: tensors.pop(name),
    "more doesn't belong to it": lambda tensors, name: tensors.update(more=torch.zeros(2)),
    "in place of [": lambda tensors, name: tensors.update({name: tensors[name][:1].clone()}),
    "of torch.float64 in place of": lambda tensors, name: tensors.update({name: tensors[name].double()}),
    "is not finite": lambda tensors, name: tensors[name].view(-1)[-1:].fill_(float("nan")),
}


@pytest.mark.parametrize("said", CHANGES)
def test_learned_tensors_of_another_kind(said, run):
    tensors = load_file(run / "adaptation.safetensors")
    CHANGES[said](tensors, sorted(tensors)[0])
    save_file(tensors, run / "adaptation.safetensors")
    renew_manifest(run)
    with pytest.raises(UserError, match=r"the learned tensors of this run .* don't fit its settings") as caught:
        clipadapt.load(run, device="cpu")
    assert said in str(caught.value)


def test_infinite_tensors_of_whole_numbers_do_not_exist():
    whole = {"count": torch.tensor([3])}
    assert misfit(whole, whole) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("record.json", "{}", "record.json is damaged (task: Field required)"),
        ("result.json", "[]", "result.json is damaged"),
        ("adaptation.safetensors", "no header", "adaptation.safetensors is damaged"),
    ],
)
def test_every_reader_says_the_same(name, text, said, run, refused):
    (run / name).write_text(text)
    assert said in refused()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("record.json", "null"),
        ("record.json", "[" * 200_000),
        ("record.json", '{"task": 1'),
        ("result.json", ""),
        ("metrics.jsonl", "1\n"),
        ("metrics.jsonl", '{"epoch": "1", "loss": 1, "lr": 1}\n'),
        ("metrics.jsonl", '{"epoch": 1}\n'),
        ("predictions.json", '{"test": {}}'),
        ("predictions.json", "x"),
    ],
)
def test_files_of_other_values(name, text, run):
    (run / name).write_text(text)
    reader = RunReader(run)
    reads = {"record": reader.record, "result": reader.result, "metrics": reader.history}
    with pytest.raises(UserError, match=rf"{name} is damaged .*: get a whole copy of the run, or delete"):
        (reads | {"predictions": reader.predictions})[name.partition(".")[0]]()


@pytest.mark.parametrize("key", [*RECORD])
@pytest.mark.parametrize("value", [None, {"a": 1}, [["x"]], -0.5, True])
def test_what_a_record_holds(key, value):
    assert records.check_record(RECORD) is RECORD
    for found in ({**RECORD, key: value}, {name: x for name, x in RECORD.items() if name != key}):
        with pytest.raises(ValueError, match=f"^{key}"):
            records.check_record(found)


@pytest.mark.parametrize(
    "change",
    [
        {"tests": {"test": {}}},
        {"tests": {"test": {"accuracy": 0.5}}},
        {"tests": {"test": FIGURES | {"accuracy": "0.5"}}},
        {"tests": []},
        {"figures": {}},
        {"figures": {"mean": RESULT["figures"]["accuracy"]}},
        {"accuracy": None},
        {"per_class": {"one": 0.5}},
        {"per_class": {"one": 0.5}, "zero_shot_per_class": {"two": 0.5}},
        {"parameters": "6"},
        {"parameters": True},
        {"seconds": None},
        {"schedule_note": 5},
    ],
    ids=str,
)
def test_what_a_result_holds(change):
    assert records.check_result(RESULT) is RESULT
    assert records.check_history(HISTORY) is HISTORY
    with pytest.raises(ValueError, match=r"\w"):
        records.check_result(RESULT | change)


def test_a_result_without_a_test_set():
    without = {key: value for key, value in RESULT.items() if key not in (*FIGURES, "figures")} | {"tests": {}}
    assert records.check_result(json.loads(json.dumps(without))) == without
