"""int8 weights for an ONNX graph, by onnxruntime."""

from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from clipadapt.exports.request import as_user_error, quiet


def quantize(path: Path) -> Path:
    """Write a graph beside another whose matrix products have int8 weights, and return its path.

    Weights have a scale for each channel; activations are rounded as they come. Convolutions stay as they are.

    Raises:
        UserError: onnxruntime can't quantize the graph.
    """
    found = path.with_name(f"{path.stem}.int8{path.suffix}")
    with quiet(), as_user_error("onnxruntime can't quantize this graph: leave out quantize="):
        quantize_dynamic(
            path, found, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
    return found
