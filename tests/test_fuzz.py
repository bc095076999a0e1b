"""Random inputs of every kind that a user or a stranger hands in: each is taken, or refused in one sentence.

The default run tries a few of each, always the same ones; `pytest -m fuzz` tries many, others every time. What isn't a
`UserError` goes through `main` as it is, and fails the test.
"""

import functools
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import clipadapt
from clipadapt import config
from clipadapt.cli import main
from clipadapt.data.images import open_image, verify_image
from clipadapt.data.sources import folder
from clipadapt.data.tables import csv
from clipadapt.errors import UserError
from tests.manifests import renew_manifest
from tests.test_api import FEW_DRAWINGS

LONGEST = 120
"""Seconds that a case may take on a busy machine."""

QUICK = [*FEW_DRAWINGS, "data=drawn", "engine.max_steps=1", "engine.workers=0", "engine.cpu=true", "engine.cache=null"]
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
TRIES = int(os.environ.get("CLIPADAPT_FUZZ", "300"))
"""Cases of each kind of `pytest -m fuzz`."""


def tries(few, share=1.0):
    """Mark a property to be tried with `few` cases that never change, and with many in `pytest -m fuzz`."""
    common = {"deadline": None, "database": None, "suppress_health_check": QUIET}
    always = settings(max_examples=few, derandomize=True, **common)
    many = settings(max_examples=max(1, round(TRIES * share)), **common)
    return pytest.mark.parametrize("profile", [always, pytest.param(many, marks=pytest.mark.fuzz)], ids=["few", "many"])


def told(words):
    """Run a command that must succeed, or fail with sentences; returns its exit code."""
    out, err, began = sys.stdout, sys.stderr, time.monotonic()
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    try:
        code = main(words)
        sys.stderr.flush()
        said = sys.stderr.buffer.getvalue().decode()
    finally:
        sys.stdout, sys.stderr = out, err
    assert code in (0, 2) and "Traceback" not in said and time.monotonic() - began < LONGEST
    assert code == 0 or "clipadapt: " in said
    return code


def refusal(call):
    """Call a function that must return, or raise a UserError; returns whether it returned."""
    began = time.monotonic()
    try:
        call()
    except UserError as error:
        assert str(error).strip() and len(str(error)) < 20_000
        return False
    finally:
        assert time.monotonic() - began < LONGEST
    return True


ODD = st.sampled_from(
    [
        "null",
        "???",
        "${",
        "${x}",
        "${shots}",
        "${oc.env:HOME}",
        "${oc.env:NO_SUCH}",
        "${oc.create:{a:1}}",
        "{}",
        "[]",
        "[[]]",
        "{a:1}",
        "{_target_:os.system}",
        "nan",
        "inf",
        "-1",
        "0",
        "1",
        "2.5",
        "1e400",
        "true",
        "'x'",
        '"',
        "\\",
        ",",
        "=",
        "a=b",
        "a,b",
        "range(1,3)",
        "choice(1,2)",
        "glob(*)",
        "sort(2,1)",
        "int(x)",
        "@",
        "~",
        "+",
        "-",
        "/x",
        "../x",
        "[/x]",
        "\0",
        "\udcff",
        "é",
        "日本",
    ]
)
LETTERS = st.text(alphabet="abcs01.,:=[]{}()$@+~-_/\\'\"? \0é\udcff", max_size=12)
VALUES = ODD | LETTERS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=8)


@functools.cache
def keys():
    """Return the keys of a run's settings, and words that stand in their place."""
    found = [path for path, _ in config.check.__globals__["leaves"](config.compose(["method=coop"]))]
    tables = {path.rpartition(".")[0] for path in found}
    groups = ["adaptation@method.adaptation", "test_time@method.test_time", "objective@method.objective", "templates"]
    return sorted(
        {*found, *tables, *groups, "experiment", "schedule", "hydra.run.dir", "hydra/launcher", "hydra"} - {""}
    )


def overrides():
    """Return a strategy of words of a command line."""
    key = st.deferred(lambda: st.sampled_from(keys())) | LETTERS
    word = st.builds(
        lambda sign, name, value: f"{sign}{name}={value}", st.sampled_from(["", "", "+", "++", "~"]), key, VALUES
    )
    options = st.sampled_from(
        [
            "-m",
            "-sc",
            "-h",
            "--cfg",
            "job",
            "--hydra-help",
            "--info",
            "-p",
            "--resolve",
            "--",
            "-x",
            "-cd",
            "--version",
            "-r",
        ]
    )
    return st.lists(word | key.map("~{}".format) | LETTERS | options, min_size=1, max_size=4)


@tries(3, share=0.5)
def test_words_of_the_command_line(profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = SimpleNamespace(metrics={})
    monkeypatch.setattr("clipadapt.runs.run.run", lambda *arguments: done)  # what runs is in the test below

    @profile
    @given(overrides())
    def check(words):
        told([*QUICK, "method=zero_shot", "output=out", *words])

    check()


@tries(1, share=0.25)
def test_settings_that_run(profile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method = st.sampled_from(sorted({*config.options("method")} - {"promptkd"}))
    names = st.deferred(
        lambda: st.sampled_from(
            [name for name in keys() if name.startswith(("method.", "task", "data", "shots", "seed", "engine"))]
        )
    )
    word = st.builds(lambda name, value: f"{name}={value}", names, ODD | st.integers(-1, 3).map(str))

    @profile
    @given(method, st.lists(word, max_size=2))
    def check(name, words):
        shutil.rmtree("out", ignore_errors=True)
        told([*QUICK, f"method={name}", "shots=1", "output=out", *words, "engine.max_steps=1", "engine.workers=0"])

    check()


@tries(2, share=0.5)
def test_yaml_of_a_users_own_folder(profile, tmp_path, monkeypatch):
    (tmp_path / "method").mkdir()
    usual = (config.conf_dir() / "method" / "coop.yaml").read_text()

    @profile
    @given(
        st.randoms(use_true_random=False),
        st.integers(0, 6),
        st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode(errors="replace")),
    )
    def check(chance, count, more):
        (tmp_path / "method" / "own.yaml").write_bytes(spoilt(usual.encode(), chance, count) if count else more)
        refusal(lambda: config.compose(["method=own"], tmp_path))
        refusal(lambda: config.methods(tmp_path))

    check()


def spoilt(content, chance, count):
    """Return bytes with a few of them changed, left out, doubled or put in."""
    found = bytearray(content)
    for _ in range(count):
        place = chance.randrange(max(1, len(found)))
        end = min(len(found), place + chance.choice([1, 1, 4, 40]))
        part = bytes(found[place:end])
        found[place:end] = chance.choice(
            [
                b"",
                part * 2,
                bytes([chance.randrange(256)]),
                b"${a}",
                b"&a ",
                b"*a",
                b"!!str ",
                b": ",
                b"- ",
                b"[",
                b"{",
                b'"',
                b"\n",
                b"\0",
                b"999999999999",
                b"null",
                b"-1",
                b"NaN",
            ]
        )
    return bytes(found)


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: "/" not in name and "\0" not in name)


@tries(3)
def test_names_of_class_folders(profile, tmp_path):
    @profile
    @given(
        st.lists(
            NAMES.map(lambda name: name.encode(errors="surrogateescape" if name.isascii() else "replace"))
            | st.binary(min_size=1, max_size=9).filter(lambda name: not {0, 47} & {*name}),
            max_size=4,
            unique=True,
        )
    )
    def check(names):
        root = tmp_path / "images"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for name in names:
            if name not in (b".", b".."):
                place = os.path.join(os.fsencode(root), name)
                os.makedirs(place)
                Image.new("RGB", (4, 4)).save(os.fsdecode(place) + "/0.png")
        refusal(lambda: folder(str(root)))
        told(["data", "verify", "folder", f"data.root={root}"])

    check()


@tries(20)
def test_cells_of_a_table(profile, tmp_path):
    cell = st.sampled_from(
        [
            "a.png",
            "b.png",
            "path",
            "label",
            "split",
            "train",
            "test",
            "val",
            "0",
            "1",
            "",
            " ",
            '"',
            "\r",
            "[/x]",
            "../a.png",
            "/dev/zero",
        ]
    ) | st.text(max_size=6)
    row = st.lists(cell, max_size=4).map(",".join)

    @profile
    @given(
        st.sampled_from(["path,label\n", "path,label,split\n", "path;label\n", "", "\ufeff", "x"]),
        st.lists(row, max_size=6).map("\n".join),
        st.binary(max_size=3),
    )
    def check(header, rows, more):
        (tmp_path / "t.csv").write_bytes((header + rows).encode(errors="replace") + more)
        if refusal(lambda: csv(str(tmp_path / "t.csv"))):
            told(["data", "verify", "csv", f"data.root={tmp_path / 't.csv'}"])

    check()


@functools.cache
def pictures():
    """Return the bytes of an image file in every format that is read, by extension."""
    found = {}
    for name in ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"):
        file = io.BytesIO()
        Image.effect_noise((24, 20), 90).convert("RGB").save(file, {"jpg": "jpeg"}.get(name, name))
        found[name] = file.getvalue()
    return found


@tries(60, share=3)
def test_bytes_of_an_image(profile, tmp_path):
    @profile
    @given(
        st.sampled_from(["png", "jpg", "gif", "bmp", "tiff", "webp", "ppm"]),
        st.randoms(use_true_random=False),
        st.integers(0, 5),
        st.booleans(),
    )
    def check(name, chance, count, header):
        content = pictures()[name]
        content = spoilt(content[:64], chance, count) + content[64:] if header else spoilt(content, chance, count)
        (tmp_path / f"x.{name}").write_bytes(content)
        refusal(lambda: verify_image(tmp_path / f"x.{name}"))
        refusal(lambda: open_image(tmp_path / f"x.{name}"))

    check()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the directory of a finished run."""
    output = tmp_path_factory.mktemp("finished")
    assert main([*QUICK, "method=tip_adapter_f", "shots=1", f"output={output}"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


TASK = ("shots", "seed", "classes", "kind", "config_dir", "templates", "size", "views", "skip_broken", "no_such")
"""Arguments of `load_task`."""
FILES = ("config.yaml", "record.json", "result.json", "metrics.jsonl", "adaptation.safetensors", "predictions.json")


@tries(3, share=0.7)
def test_files_of_a_run(profile, finished, tmp_path):
    image = tmp_path / "x.png"
    Image.new("RGB", (32, 32)).save(image)

    @profile
    @given(st.sampled_from(FILES), st.randoms(use_true_random=False), st.integers(1, 4), st.booleans())
    def check(name, chance, count, meant):
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        (run / name).write_bytes(spoilt((run / name).read_bytes(), chance, count))
        if meant:
            renew_manifest(run)  # as a stranger could, so that the file itself is read
        refusal(lambda: clipadapt.load(run, device="cpu").predict(image))
        refusal(lambda: clipadapt.evaluate(run))

    check()


@tries(4, share=0.7)
def test_values_of_a_runs_settings(profile, finished, tmp_path):
    usual = yaml.safe_load((finished / "config.yaml").read_text())
    paths = [path for path, _ in config.check.__globals__["leaves"](usual)]
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | ODD,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.text(max_size=9) | st.sampled_from(["_target_", "name", "_partial_"]), inner, max_size=3
            )
        ),
        max_leaves=5,
    )
    run = shutil.copytree(finished, tmp_path / "run")

    @profile
    @given(st.sampled_from(paths), plain, st.booleans())
    def check(path, value, above):
        settings = json.loads(json.dumps(usual))
        *tables, key = (path.rpartition(".")[0] or path).split(".") if above else path.split(".")
        table = functools.reduce(dict.__getitem__, tables, settings)
        table[key] = value
        (run / "config.yaml").write_bytes(yaml.safe_dump(settings).encode(errors="replace"))
        renew_manifest(run)
        refusal(lambda: clipadapt.load(run, device="cpu"))
        refusal(lambda: clipadapt.evaluate(run))

    check()


@functools.cache
def things():
    """Return Python values of many types."""
    closed = Image.new("RGB", (4, 4))
    closed.close()
    arrays = [np.zeros(0), np.full((32, 32, 3), np.nan), np.zeros((2, 3), dtype=object), np.int64(3)]
    tensors = [torch.zeros(0), torch.full((3, 32, 32), torch.inf), torch.zeros(1, 3, 32, 32), torch.tensor(2)]
    images = [closed, Image.new("1", (1, 1)), Image.new("F", (9, 3)), Image.new("RGB", (0, 5))]
    others = [object(), print, Image, b"", b"\xff", {1, 2}, range(3), 1j, Path("x"), Path(), iter([1]), slice(1)]
    return [*arrays, *tensors, *images, *others]


def python_values():
    """Return a strategy of values that a notebook could hand in."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | ODD
    odd = st.deferred(lambda: st.sampled_from(things()))
    inner = plain | odd
    return inner | st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2)


@tries(10)
def test_values_of_the_api(profile, finished, tmp_path, monkeypatch, clip):
    monkeypatch.chdir(tmp_path)
    drawn = {"train_per_class": 1, "validation_per_class": 1, "test_images": 12, "shots": 1}
    small = clipadapt.load_task("drawn", **drawn)
    predictor, fit = clipadapt.load(finished, device="cpu"), {"cpu": True, "workers": 0, "cache": None}
    calls = {
        **{key: lambda value, key=key: clipadapt.load_task("drawn", **{**drawn, key: value}) for key in TASK},
        "source": lambda value: clipadapt.load_task(value),
        "root": lambda value: clipadapt.load_task("folder", root=value),
        "name": lambda value: clipadapt.load_backbone(value, None),
        "pretrained": lambda value: clipadapt.load_backbone("tiny", value),
        "backbone's seed": lambda value: clipadapt.load_backbone("tiny", None, seed=value),
        "backbone": lambda value: clipadapt.finetune(value, small),
        "task": lambda value: clipadapt.finetune(clip, value),
        "method": lambda value: clipadapt.finetune(clip, small, value, **{**fit, "max_steps": 1}),
        "overrides": lambda value: clipadapt.finetune(clip, small, "zero_shot", value, **fit),
        **{
            key: lambda value, key=key: clipadapt.finetune(clip, small, "zero_shot", **{**fit, key: value})
            for key in ("epochs", "batch_size", "workers", "precision", "memory", "cache", "no_such")
        },
        "run": lambda value: clipadapt.load(value),
        "config_dir": lambda value: clipadapt.load(finished, device="cpu", config_dir=value),
        "device": lambda value: clipadapt.load(finished, device=value),
        "images": lambda value: predictor.predict(value),
        "more images": lambda value: predictor.predict_proba([value, value]),
        "evaluated run": lambda value: clipadapt.evaluate(value),
        "evaluated data": lambda value: clipadapt.evaluate(finished, value),
        "evaluated root": lambda value: clipadapt.evaluate(finished, "folder", root=value),
        "methods": lambda value: clipadapt.compare(value, "drawn", 1, 1, ["data.shots=0"]),
        "shots of a comparison": lambda value: clipadapt.compare("zero_shot", "drawn", value, 1, ["data.shots=0"]),
    }

    @profile
    @given(st.sampled_from([*calls]), python_values())
    def check(name, value):
        refusal(lambda: calls[name](value))

    check()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in range(1, 20))])
def test_a_process_of_its_own(seed):
    chance = random.Random(seed)
    words = [
        f"{chance.choice(['shots', 'method', 'data', 'output', 'x'])}={''.join(chance.choices('ab1[]{}$,/é', k=4))}"
        for _ in range(2)
    ]
    done = subprocess.run([sys.executable, "-m", "clipadapt", *words, "--cfg", "job"], capture_output=True, text=True)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr
