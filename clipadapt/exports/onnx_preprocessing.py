"""The preprocessing of images as an ONNX graph: bytes of RGB of any size to pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import ImageColor

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.data.framing import Framing
from clipadapt.errors import UserError
from clipadapt.exports.request import as_user_error
from clipadapt.runs.predictor import Predictor

MODES = {"bicubic": "cubic", "bilinear": "linear"}
PREFIX = "preprocess/"
PILLOW = {"antialias": 1, "cubic_coeff_a": -0.5, "exclude_outside": 1, "coordinate_transformation_mode": "half_pixel"}
"""Resizing as Pillow does it."""


class Steps:
    """Nodes of a graph, one after another, with constants as they are needed."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Return the name of a new constant."""
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        name = f"{PREFIX}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def sides(self, x: str) -> tuple[str, str]:
        """Return height and width, each `[1]`, of images `[B, 3, height, width]`."""
        shape = self.add("Shape", x)
        rows = self.add("Gather", shape, self.constant([2]))
        return rows, self.add("Gather", shape, self.constant([3]))

    def resize(self, x: str, height: str, width: str, mode: str) -> str:
        """Return images resized to sides of `[1]` each."""
        sides = self.add("Concat", height, width, axis=0)
        return self.add("Resize", x, "", "", sides, mode=mode, axes=[2, 3], **PILLOW)


def check(predictor: Predictor) -> None:
    """Check that the preprocessing of a predictor can be a graph.

    Raises:
        UserError: it can't; the sentence says why.
    """
    clip = predictor.model.clip
    advice = "leave out preprocess=true"
    if predictor.framing.bands is not None:
        raise UserError(f"bands of an image can't be chosen inside the graph, which takes RGB: {advice}")
    height, width = clip.image_size
    how, by = clip.preprocess.get("resize_mode", "shortest"), clip.preprocess["interpolation"]
    if how not in ("shortest", "squash") or by not in MODES or (how == "shortest" and height != width):
        raise UserError(
            f"this backbone's preprocessing ({how} side to {height} x {width}, {by}) isn't written as a graph: {advice}"
        )


def put_before(path: Path, predictor: Predictor) -> None:
    """Put the preprocessing of a predictor before the graph in a file, whose input is then `images`.

    Raises:
        UserError: the graph is too large for one file.
    """
    with as_user_error("a graph of this size can't take preprocessing inside: leave out preprocess=true"):
        model = onnx.load(path)
        opset = next(each.version for each in model.opset_import if not each.domain)
        before = build(predictor.model.clip, predictor.framing, opset, model.ir_version)
        merged = onnx.compose.merge_models(before, model, io_map=[(f"{PREFIX}pixels", "pixels")])
        opsets = {each.domain: each.version for each in merged.opset_import}  # merging lists each twice
        del merged.opset_import[:]
        merged.opset_import.extend(helper.make_opsetid(*each) for each in opsets.items())
        helper.set_model_props(merged, {each.key: each.value for each in model.metadata_props})
        onnx.checker.check_model(merged)
        onnx.save(merged, path)


def pixels_alone(path: Path) -> bytes:
    """Return the graph of the preprocessing in a file, to `pixels`."""
    model = onnx.load(path)
    return bytes(onnx.utils.Extractor(model).extract_model(["images"], [f"{PREFIX}pixels"]).SerializeToString())


def build(clip: DualEncoder, framing: Framing, opset: int, ir_version: int) -> Any:
    """Return the model from `images` `[B, height, width, 3]`, in bytes, to pixels."""
    steps = Steps()
    x = steps.add("Transpose", "images", perm=[0, 3, 1, 2])
    x = resized(steps, framed(steps, x, framing), clip)
    x = steps.add("Div", steps.add("Cast", x, to=TensorProto.FLOAT), steps.constant(255, np.float32))
    mean, std = (np.reshape(clip.preprocess[key], (3, 1, 1)) for key in ("mean", "std"))
    x = steps.add("Sub", x, steps.constant(mean, np.float32))
    steps.nodes.append(helper.make_node("Div", [x, steps.constant(std, np.float32)], [f"{PREFIX}pixels"]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])
    pixels = helper.make_tensor_value_info(f"{PREFIX}pixels", TensorProto.FLOAT, ["batch", 3, *clip.image_size])
    graph = helper.make_graph(steps.nodes, "preprocess", [images], [pixels], steps.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def framed(steps: Steps, x: str, framing: Framing) -> str:
    """Return images of which nothing is cut off by the crop, as `Framing` does it."""
    if framing.resize == "crop":
        return x
    height, width = steps.sides(x)
    side = steps.add("Max", height, width)
    if framing.resize == "squash":
        return steps.resize(x, side, side, "cubic")
    colour = steps.constant(np.reshape(ImageColor.getrgb(framing.pad_colour)[:3], (1, 3, 1, 1)), np.uint8)
    for axis, own in ((2, height), (3, width)):
        missing = steps.add("Sub", side, own)
        before = steps.add("Div", missing, steps.constant([2]))
        bands = []
        for count in (before, steps.add("Sub", missing, before)):
            shape = steps.add("Shape", x)
            shape = steps.add("ScatterElements", shape, steps.constant([axis]), count)
            bands.append(steps.add("Expand", colour, shape))
        x = steps.add("Concat", bands[0], x, bands[1], axis=axis)
    return x


def resized(steps: Steps, x: str, clip: DualEncoder) -> str:
    """Return images of the backbone's size, as its transform makes them."""
    high, wide = clip.image_size
    mode = MODES[clip.preprocess["interpolation"]]
    if clip.preprocess.get("resize_mode", "shortest") == "squash":
        return steps.resize(x, steps.constant([high]), steps.constant([wide]), mode)
    shorter = steps.add("Min", *steps.sides(x))
    sides = [steps.add("Div", steps.add("Mul", side, steps.constant([high])), shorter) for side in steps.sides(x)]
    x = steps.resize(x, sides[0], sides[1], mode)
    starts = steps.add("Concat", *(crop_start(steps, side, high) for side in sides), axis=0)
    ends = steps.add("Add", starts, steps.constant([high, wide]))
    return steps.add("Slice", x, starts, ends, steps.constant([2, 3]))


def crop_start(steps: Steps, side: str, size: int) -> str:
    """Return where the centre crop begins, `[1]`; halves are rounded to even, as Python does."""
    rest = steps.add("Cast", steps.add("Sub", side, steps.constant([size])), to=TensorProto.FLOAT)
    half = steps.add("Round", steps.add("Div", rest, steps.constant(2, np.float32)))
    return steps.add("Cast", half, to=TensorProto.INT64)
