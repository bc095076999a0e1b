"""Every method in every format: exported with the run's probabilities, or refused with the reason."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import clipadapt
from clipadapt.errors import UserError
from clipadapt.exports.formats import FORMATS
from tests.engine.tasks import split, task
from tests.exports.one_block import one_block, register
from tests.small import needed

METHODS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml"))
SHORT = ["engine.max_steps=1", "engine.workers=0", "engine.cache=null"]
STREAMS = {"boostadapter", "dmn", "dmn_tf", "dpe", "onzeta", "tda"}
SMALLER = {
    name: ["method.test_time.views=10"] for name in ("ctpt", "mta", "tps", "tpt", "ttl", "zero", *STREAMS - {"onzeta"})
}
SMALLER["dynaprompt"] = ["method.test_time.views=10", "method.test_time.prompts=3"]
SMALLER["rlcf"] = ["method.test_time.views=10", "method.test_time.teacher={name:tiny,pretrained:embedded}"]
SMALLER["rtpt"] = ["method.test_time.views=10", "method.test_time.neighbours=5"]
SMALLER |= {"clipartt": ["method.test_time.steps=1"], "watt": ["method.test_time.steps=1", "method.test_time.rounds=1"]}
SMALLER["tip_x"] = ["method.adaptation.betas=5"]
SMALLER |= {name: needed(name, task().class_names) for name in ("cupl", "vcd")}
SMALLER["promptkd"] = ["method.objective.teachers=[{name:tiny,pretrained:embedded}]"]

AT_TEST_TIME = {
    *STREAMS,
    "clipartt",
    "ctpt",
    "dynaprompt",
    "mta",
    "rlcf",
    "rtpt",
    "stata",
    "tps",
    "tpt",
    "transclip",
    "transclip_few_shot",
    "ttl",
    "watt",
    "zero",
    "zlap",
}
WEIGHTS = {"bitfit", "clip_lora", "cupl", "full_finetuning", "peft", "prolip", "zero_shot"}
"""Methods whose learned tensors are weights of the towers, or none."""
CLASS_WEIGHTS = {"zero_shot", "clap", "coop", "cross_modal", "kgcoop", "linear_probe", "lp_plus_plus", "prograd"} | {
    "cupl",
    "gda_clip",
    "taskres",
    "tcp",
    "vcd",
    "waffle",
    "upl",
    "zs_lp",
}
PEFT = {"clip_lora", "peft", "ttl"}
EXPORTED = {
    "onnx": {*METHODS} - AT_TEST_TIME,
    "torch": {*METHODS} - AT_TEST_TIME,
    "open_clip": WEIGHTS,
    "classifier": CLASS_WEIGHTS,
    "peft": PEFT,
    "transformers": WEIGHTS,
}
"""By format, the methods that can be exported; the others are refused."""
REFUSALS = {
    "transformers": "isn't weights of the towers|adapts to each test image|can't be merged into the block's weights",
    "open_clip": "isn't weights of the towers|adapts to each test image|can't be merged into the block's weights",
    "classifier": "depend on the image|changes the image side|all patches|aren't one matrix product|each test image",
    "peft": "no adapter of peft",
    "onnx": "adapts to each test image",
    "torch": "adapts to each test image",
}
QUICK = [
    ("clip_lora", "open_clip"),
    ("clip_lora", "peft"),
    ("coop", "classifier"),
    ("coop", "open_clip"),
    ("tip_adapter", "classifier"),
    ("tda", "torch"),
]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """What a method learned in one step."""
    register(tmp_path_factory.mktemp("models"))
    found = {}

    def fit(name):
        if name not in found:
            chosen_on = {"validation": split([0, 1, 2]), "validation_indices": [7, 8, 9]}
            overrides = [*SHORT, *SMALLER.get(name, [])]
            found.clear()
            found[name] = clipadapt.finetune(one_block(), replace(task(), **chosen_on), name, overrides, cpu=True)
        return found[name]

    return fit


def check(result, name, form, folder):
    """Export a method, and check that it is as the table says."""
    if form in ("onnx", "transformers"):
        for package in FORMATS[form].packages:
            pytest.importorskip(package)
    if name in EXPORTED[form]:
        exported = clipadapt.export(result(name), form, folder)
        assert exported.difference <= TOLERANCE
        assert [*exported.files] == sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
        return
    with pytest.raises(UserError) as caught:
        clipadapt.export(result(name), form, folder)
    assert re.search(REFUSALS[form], str(caught.value)), caught.value
    assert not [*folder.parent.iterdir()]


def test_the_table_has_known_methods():
    assert all(names <= {*METHODS} for names in EXPORTED.values())


@pytest.mark.parametrize("name, form", QUICK)
def test_some_methods(result, name, form, tmp_path):
    check(result, name, form, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("form", EXPORTED)
@pytest.mark.parametrize("name", METHODS)
def test_every_method(result, name, form, tmp_path):
    check(result, name, form, tmp_path / "out")
