"""format=onnx: a graph from pixels, or from images of any size, to answers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from torch import Tensor

from clipadapt.errors import UserError
from clipadapt.exports import onnx_preprocessing, onnx_quantization
from clipadapt.exports.answers import trace
from clipadapt.exports.preprocessing import describe, dump
from clipadapt.exports.request import Comparison, Request, Written, as_user_error, quiet

MODEL, PREPROCESS = "model.onnx", "preprocess.json"
BATCHED = 4
"""Dimensions of the queries, keys and values of attention: `[B, H, S, d]`."""

LEAST_OPSET = 18
"""The first with what the exporter of torch writes, such as norms of layers and resizing without aliasing."""


def write(request: Request, folder: Path) -> Written:
    """Write `model.onnx`, maybe `model.int8.onnx`, and `preprocess.json` unless the graph does that.

    Raises:
        UserError: the opset is too old or too new, or the method or its preprocessing can't be a graph.
    """
    options, path = request.options, folder / MODEL
    inside = options["preprocess"]
    if inside:
        onnx_preprocessing.check(request.predictor)
    program = to_onnx(request, options["opset"])
    program.save(path)
    reached = request.compare(run_pixels(path))
    notes = [f"opset {options['opset']}; input pixels [B, 3, height, width], float32, preprocessed"]
    figures: dict[str, Any] = {"opset": options["opset"]}
    if inside:
        onnx_preprocessing.put_before(path, request.predictor)
        added, pixels = compare_images(request, path), compare_pixels(request, path)
        notes = [
            f"opset {options['opset']}; input images [B, height, width, 3], bytes of RGB of any size",
            f"with preprocessing inside the graph: {added}; its pixels are up to {pixels:.2g} from the run's",
        ]
        figures |= {"preprocess_difference": added.difference, "pixel_difference": pixels}
    else:
        (folder / PREPROCESS).write_text(dump(request.predictor))
        notes.append(f"{PREPROCESS} says how images become pixels")
    if options["quantize"] == "dynamic":
        found = onnx_quantization.quantize(path)
        answer = compare_images(request, found) if inside else request.compare(run_pixels(found), rounding=None)
        notes.append(f"{found.name}, whose weights are int8: {answer}")
        figures |= {"int8": answer}
    return Written(reached, tuple(notes), figures)


def to_onnx(request: Request, opset: int) -> Any:
    """Return the program of torch.onnx.

    Raises:
        UserError: the opset is too old or too new, or the method can't be a graph.
    """
    most = onnx.defs.onnx_opset_version()
    if not LEAST_OPSET <= opset <= most:
        why = "lacks operations of this model" if opset < LEAST_OPSET else "is newer than the onnx installed"
        raise UserError(f"opset={opset} {why}: take one from {LEAST_OPSET} to {most}")
    pixels = next(request.examples.batches(request.head.clip))
    output = "probabilities" if request.predictor.kind.probabilities else "answers"
    with quiet(), as_user_error("this method can't be an ONNX graph"):
        traced = trace(request.answers, pixels)
        flatten_attention(traced.graph_module.graph)
        program: Any = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=["pixels"],
            output_names=[output],
        )
        if program.model.opset_imports.get("") != opset:
            raise UserError(f"opset={opset} lacks operations of this model: take another, such as {LEAST_OPSET}")
    program.model.metadata_props.update(describe(request.predictor))
    return program


def flatten_attention(graph: Any) -> None:
    """Give attention over several leading dimensions a single one, which is all that torch.onnx translates."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        shape = node.meta["val"].shape
        if len(shape) == BATCHED:
            continue
        with graph.inserting_before(node):
            flat = [graph.call_function(aten.flatten.using_ints, (each, 0, -BATCHED)) for each in node.args[:3]]
        with graph.inserting_after(node):
            sizes = [size if isinstance(size, int) else -1 for size in shape[: 1 - BATCHED]]
            whole = graph.call_function(aten.unflatten.int, (node, 0, sizes))
        node.replace_all_uses_with(whole, delete_user_cb=lambda user, own=whole: user is not own)
        for each, given in zip(flat, node.args[:3], strict=True):
            each.meta["val"] = given.meta["val"].flatten(0, -BATCHED)
        whole.meta["val"], node.meta["val"] = node.meta["val"], node.meta["val"].flatten(0, -BATCHED)
        node.args = (*flat, *node.args[3:])


def session(path: Path | bytes) -> Any:
    """Return onnxruntime's session of a graph, in a file or as bytes, on the CPU.

    Raises:
        UserError: onnxruntime can't read the graph.
    """
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = torch.get_num_threads(), 3
    with as_user_error(f"onnxruntime {onnxruntime.__version__} can't read the graph: take another opset="):
        return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def run_pixels(path: Path) -> Any:
    """Return a function from pixels to the answers of a graph."""
    opened = session(path)

    def answer(pixels: Tensor) -> Tensor:
        (found,) = opened.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(found)

    return answer


def compare_images(request: Request, path: Path) -> Comparison:
    """Return how far the answers of a graph with preprocessing are from the predictor's."""
    opened, pictures = session(path), request.examples.pictures
    expected = torch.cat([answers for _, answers in request.batches()])
    found = [opened.run(None, {"images": np.asarray(pictures[index])[None]})[0] for index in range(len(pictures))]
    return request.weigh(expected, torch.from_numpy(np.concatenate(found)), rounding=None)


def compare_pixels(request: Request, path: Path) -> float:
    """Return the largest difference of pixels between the graph's preprocessing and the backbone's transform."""
    opened = session(onnx_preprocessing.pixels_alone(path))
    transform = request.head.clip.transform

    def difference(picture: Image.Image) -> float:
        (found,) = opened.run(None, {"images": np.asarray(picture)[None]})
        return float((torch.from_numpy(found)[0] - transform(request.examples.framing(picture))).abs().max())

    return max(map(difference, request.examples.pictures))
