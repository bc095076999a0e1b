"""format=torch: a program of torch.export, which torch alone loads."""

import shutil
from pathlib import Path
from typing import Any

import torch

from clipadapt.errors import UserError
from clipadapt.exports.answers import trace
from clipadapt.exports.preprocessing import describe, dump
from clipadapt.exports.request import Request, Written, as_user_error, quiet

PROGRAM, COMPILED, PREPROCESS = "model.pt2", "model.compiled.pt2", "preprocess.json"


def write(request: Request, folder: Path) -> Written:
    """Write `model.pt2`, maybe `model.compiled.pt2`, and `preprocess.json`.

    Raises:
        UserError: the method can't be a graph, or there is no compiler for compile=true.
    """
    if request.options["compile"] and not (shutil.which("g++") or shutil.which("c++")):
        raise UserError("compile=true needs a C++ compiler, and there is none here: install g++, or leave it out")
    pixels = next(request.examples.batches(request.head.clip))
    with quiet(), as_user_error("this method can't be a graph of torch.export"):
        program = trace(request.answers, pixels)
        torch.export.save(program, folder / PROGRAM, extra_files=describe(request.predictor))
        loaded = torch.export.load(folder / PROGRAM).module()
    reached = request.compare(loaded)
    (folder / PREPROCESS).write_text(dump(request.predictor))
    notes = [
        f"torch.export.load('{PROGRAM}').module() maps pixels [B, 3, height, width] to answers",
        f"{PREPROCESS} says how images become pixels",
    ]
    if request.options["compile"]:
        notes.append(f"{COMPILED}, for torch._inductor.aoti_load_package: {compile_program(request, program, folder)}")
    return Written(reached, tuple(notes))


def compile_program(request: Request, program: Any, folder: Path) -> str:
    """Compile a program for this machine's kind of processor, and return how its answers compare.

    Raises:
        UserError: it can't be compiled, or answers otherwise.
    """
    from torch._inductor import aoti_compile_and_package, aoti_load_package  # takes seconds to import

    with quiet(), as_user_error("the program can't be compiled: leave out compile=true"):
        aoti_compile_and_package(program, package_path=str(folder / COMPILED))
        compiled = aoti_load_package(str(folder / COMPILED))
    return str(request.compare(compiled))
