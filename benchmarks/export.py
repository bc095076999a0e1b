"""Exported files of several methods on the embedded backbone: differences, sizes, and images a second.

Each method learns from 16 digits a class, in at most 150 steps. `onnx` and `int8` are compared with the run on its test
images; speed is that of batches of 64 pixels that are in memory, the median of the repeats.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import clipadapt
from clipadapt.errors import UserError
from clipadapt.exports.answers import Answers
from clipadapt.exports.export import Exported
from clipadapt.exports.formats import FORMATS
from clipadapt.exports.onnx_graph import run_pixels

METHODS = ("zero_shot", "coop", "clip_adapter", "tip_adapter", "linear_probe", "clip_lora")
BATCH = 64
QUICK = ["engine.max_steps=150", "engine.workers=0"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table of Markdown, and write JSON if asked for."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--methods", nargs="+", default=[*METHODS])
    made.add_argument("--formats", nargs="+", default=[*FORMATS])
    made.add_argument("--images", type=int, default=797, help="test images to compare on")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")
    chosen = made.parse_args(arguments)
    backbone, task = clipadapt.load_backbone(), clipadapt.load_task("digits")
    rows: list[dict[str, Any]] = []
    for method in chosen.methods:
        with tempfile.TemporaryDirectory() as folder:
            run = clipadapt.finetune(backbone, task, method, QUICK, cpu=True).save(Path(folder) / "run")
            rows += [measure(method, name, run, Path(folder) / name, chosen) for name in chosen.formats]
    print(table(rows))
    if chosen.out:
        chosen.out.write_text(json.dumps({"rows": rows, "threads": torch.get_num_threads()}, indent=2) + "\n")


def measure(method: str, name: str, run: Path, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one method in one format."""
    options = {"quantize": "dynamic"} if name == "onnx" else {}
    try:
        exported = clipadapt.export(run, name, folder, images=chosen.images, **options)
    except UserError as error:
        return {"method": method, "format": name, "refused": str(error)}
    row = {"method": method, "format": name, "difference": exported.difference, "bytes": exported.bytes}
    return row | speeds(run, exported, chosen.repeats) if name == "onnx" else row


def speeds(run: Path, exported: Exported, repeats: int) -> dict[str, Any]:
    """Return images a second of PyTorch, of the graph, and of the graph with int8 weights, with their figures."""
    predictor, int8 = clipadapt.load(run, "cpu"), exported.figures["int8"]
    paths = {name: exported.folder / f"{file}.onnx" for name, file in (("onnx", "model"), ("int8", "model.int8"))}
    sides = {
        "torch": Answers(predictor.model, predictor.kind),
        **{name: run_pixels(path) for name, path in paths.items()},
    }
    pixels = torch.randn(BATCH, 3, *predictor.model.clip.image_size)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats + 1):
        for name, side in sides.items():
            seconds[name].append(timed(lambda side=side: side(pixels)))
    return {
        "images_per_second": {name: BATCH / statistics.median(each[1:]) for name, each in seconds.items()},
        "file_bytes": {name: path.stat().st_size for name, path in paths.items()},
        "int8_difference": int8.difference,
        "accuracies": int8.accuracies,
    }


def timed(action: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return differences of all formats, then speeds and sizes of the graphs, as tables of Markdown."""
    formats = list(dict.fromkeys(row["format"] for row in rows))
    lines = [f"| method | {' | '.join(formats)} |", f"|---|{'---|' * len(formats)}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["format"]: row for row in rows if row["method"] == method}
        cells = ["refused" if "refused" in own[name] else f"{own[name]['difference']:.1e}" for name in formats]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    lines += ["", "| method | PyTorch | ONNX | int8 | ONNX | int8 | accuracy | int8's |", f"|{'---|' * 8}"]
    for row in (row for row in rows if "images_per_second" in row):
        speed, size, (before, after) = row["images_per_second"], row["file_bytes"], row["accuracies"]
        cells = [f"{speed[name]:,.0f}/s" for name in ("torch", "onnx", "int8")]
        cells += [f"{size[name] / 1e6:.1f} MB" for name in ("onnx", "int8")] + [f"{before:.2%}", f"{after:.2%}"]
        lines.append(f"| `{row['method']}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
