"""What was exported works without this library, and is there whole or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.adaptations import Patch, ZeroShot
from clipadapt.data.framing import Framing
from clipadapt.errors import UserError, WriteError
from clipadapt.exports import class_weights
from clipadapt.exports.examples import find_examples
from clipadapt.runs.predictor import Predictor
from clipadapt.tasks import Classifier
from tests.exports.one_block import one_block, register
from tests.small import TASK, images

NAMES = ["cat", "dog", "owl"]
ALONE = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
(given,) = session.get_inputs()
found = session.run(None, {given.name: np.load(sys.argv[2])})[0]
np.save(sys.argv[3], found)
print(session.get_modelmeta().custom_metadata_map["class_names"], given.name)
assert not {"torch", "clipadapt"} & {*sys.modules}, "onnxruntime alone"
"""
PROGRAM_ALONE = """
import sys
import numpy as np
import torch
found = torch.export.load(sys.argv[1]).module()(torch.from_numpy(np.load(sys.argv[2])))
np.save(sys.argv[3], found.detach().numpy())
assert "clipadapt" not in sys.modules and "open_clip" not in sys.modules, "torch alone"
"""


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    register(tmp_path_factory.mktemp("models"))
    return Predictor(Classifier(one_block(), ZeroShot(one_block(), TASK), NAMES))


def run_alone(code, model, given, folder):
    """The answers of a model in a process of its own, and what that printed."""
    np.save(folder / "given.npy", given)
    command = [sys.executable, "-c", code, str(model), str(folder / "given.npy"), str(folder / "found.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "found.npy")), done.stdout


def test_onnxruntime_alone_runs_a_graph(predictor, tmp_path):
    onnx = pytest.importorskip("onnx")
    exported = clipadapt.export(predictor, "onnx", tmp_path / "out", opset=18)
    path, pixels = tmp_path / "out" / "model.onnx", images(5)
    assert exported.files == ("model.onnx", "preprocess.json") and exported.difference <= 1e-4
    assert "32 images of noise made here" in exported.compared.source
    found, printed = run_alone(ALONE, path, pixels.numpy(), tmp_path)
    assert (found - predictor.model.output(pixels).logits.softmax(-1)).abs().max() <= 1e-4
    assert printed.split("]")[0] + "]" == json.dumps(NAMES) and printed.split()[-1] == "pixels"
    model = onnx.load(path)
    assert [each.version for each in model.opset_import if not each.domain] == [18]
    embeddings = 49408 * 64 * 4
    assert path.stat().st_size < embeddings, "the text tower is shipped"
    told = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert told["size"] == [32, 32] and told["class_names"] == NAMES and told["interpolation"] == "bicubic"


@pytest.mark.parametrize(
    "opset, said", [(11, "opset=11 lacks operations of this model"), (99, "opset=99 is newer than")]
)
def test_an_opset_that_cannot_be(predictor, tmp_path, opset, said):
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match=said):
        clipadapt.export(predictor, "onnx", tmp_path / "out", opset=opset)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["crop", "pad", "squash"])
def test_a_graph_reads_images_of_any_size(predictor, tmp_path, framing):
    pytest.importorskip("onnx")
    seen = Framing(framing, "#7a7468")
    framed = Predictor(predictor.model, framing=seen)
    exported = clipadapt.export(framed, "onnx", tmp_path / "out", preprocess=True, quantize="dynamic")
    assert exported.files == ("model.int8.onnx", "model.onnx")
    assert exported.figures["pixel_difference"] <= 1.01 / 255 / min(predictor.model.clip.preprocess["std"])
    picture = np.random.default_rng(3).integers(0, 256, (2, 51, 90, 3), dtype=np.uint8)
    picture = np.stack([np.asarray(Image.fromarray(each).resize((90, 51))) for each in picture])
    found, printed = run_alone(ALONE, tmp_path / "out" / "model.onnx", picture, tmp_path)
    assert (found - framed.predict_proba([*picture])).abs().max() <= 0.02 and printed.split()[-1] == "images"
    assert exported.figures["int8"].same >= 0.7


@pytest.mark.slow
def test_torch_alone_runs_a_program(predictor, tmp_path):
    clipadapt.export(predictor, "torch", tmp_path / "out")
    found, _ = run_alone(PROGRAM_ALONE, tmp_path / "out" / "model.pt2", images(5).numpy(), tmp_path)
    assert (found - predictor.model.output(images(5)).logits.softmax(-1)).abs().max() <= 1e-5


@pytest.mark.slow
def test_a_program_is_compiled(predictor, tmp_path):
    exported = clipadapt.export(predictor, "torch", tmp_path / "out", compile=True)
    assert "model.compiled.pt2" in exported.files


def test_compiling_without_a_compiler(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        clipadapt.export(predictor, "torch", tmp_path / "out", compile=True)


def test_one_product_classifies(predictor, tmp_path):
    clipadapt.export(predictor, "classifier", tmp_path / "out")
    weight, card = np.load(tmp_path / "out/classifier.npy"), json.loads((tmp_path / "out/classifier.json").read_text())
    assert weight.shape == (3, 32) and card["class_names"] == NAMES and card["features"] == "unit"
    features = predictor.model.clip.image.run(images(4)).numpy()
    scores = card["scale"] * features / np.linalg.norm(features, axis=-1, keepdims=True) @ weight.T
    assert np.abs(scores - predictor.model(images(4)).detach().numpy()).max() <= 1e-4


def test_what_answers_otherwise_is_not_written(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(
        class_weights,
        "load_file",
        lambda path: {"weight": torch.ones(3, 32), "bias": torch.zeros(3), "scale": torch.tensor(9.0)},
    )
    with pytest.raises(UserError, match=r"answers are up to .* from the predictor's"):
        clipadapt.export(predictor, "classifier", tmp_path / "below" / "out")
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_leaves_nothing(predictor, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(class_weights.np, "save", full)
    with pytest.raises(WriteError, match="No space left"):
        clipadapt.export(predictor, "classifier", tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_draws_at_random_are_refused(tmp_path):
    patch = Patch(one_block(), TASK, size=4)
    with pytest.raises(UserError, match="draws at random"):
        clipadapt.export(Predictor(Classifier(one_block(), patch, NAMES)), "torch", tmp_path / "out")


@pytest.mark.slow
def test_the_test_images_of_a_run(tmp_path):
    backbone, task = clipadapt.load_backbone(), clipadapt.load_task("digits", shots=1)
    run = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0).save(tmp_path / "run")
    examples = find_examples(run, clipadapt.load(run, "cpu"), 20, None)
    assert examples.source == "20 of 797 images of the test set 'test'" and len(examples.pictures) == 20
    assert examples.labels is not None and len({*examples.labels.tolist()}) > 5
