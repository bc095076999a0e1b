"""The benchmarks run at a tiny size, and what they measure with is right; nothing here looks at a time."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from benchmarks import (
    command,
    encode,
    fit,
    folder,
    long_lives,
    measure,
    memory,
    online,
    operations,
    parts,
    plain,
    prompts,
    serve,
    test_time,
    threads,
    whole_set,
    zero_shot,
)
from clipadapt.adaptations import Context, FeatureAdapter, ZeroShot
from clipadapt.backbone.open_clip import CLIP
from clipadapt.tasks.classification import Classifier

MB = 2**20
ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
NAMES = ["goldfish", "tiger shark", "hen"]


@pytest.fixture(autouse=True)
def one_thread():
    """Small steps are slow where threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    return CLIP.load("tiny", None)


def rows(benchmark, tmp_path, *options):
    """The rows of a benchmark's JSON, whose figures are numbers."""
    file = tmp_path / "found.json"
    benchmark.main(["--backbone", "tiny", "--device", "cpu", "--out", str(file), *options])
    found = json.loads(file.read_text())
    assert found["settings"]["backbone"] == "tiny" and found["machine"]["torch"] == torch.__version__
    assert all(math.isfinite(row["ratio"]) for row in found["rows"])
    return found["rows"]


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("bf16", 0.1)])
def test_prompts(tmp_path, precision, tolerance):
    sizes = ["--classes", "3", "--n-ctx", "2", "--images", "2", "--plain-classes", "6", "--repeats", "1"]
    found = rows(prompts, tmp_path, *sizes, "--precision", precision)
    assert [row["form"] for row in found] == list(prompts.FORMS)
    assert all(row["difference"] < tolerance and row["scaled"] is None for row in found)
    assert all(0 < row["floor_seconds"] < math.inf for row in found)


def test_a_plain_side_that_is_too_large_is_scaled(tmp_path):
    sizes = ["--classes", "6", "--n-ctx", "2", "--images", "2", "--plain-classes", "4", "--repeats", "1"]
    shared, per_image = rows(prompts, tmp_path, *sizes, "--forms", "shared", "per-image")
    assert shared["scaled"] == "4 classes" and per_image["scaled"] == "2 classes"
    assert per_image["plain_seconds"] == pytest.approx(3 * per_image["median_seconds"]["plain"])
    assert shared["difference"] is per_image["difference"] is None


def test_memory(tmp_path):
    measured, scaled = rows(memory, tmp_path, "--classes", "3", "6", "--plain-classes", "3", "--n-ctx", "2")
    assert measured["plain_bytes"] > measured["ours_bytes"] > 0 and measured["scaled"] is None
    assert scaled["plain_bytes"] == 2 * scaled["plain_measured_bytes"] and scaled["scaled"] == "3 classes"


def test_zero_shot(tmp_path):
    (row,) = rows(zero_shot, tmp_path, "--classes", "3", "--repeats", "1")
    assert row["templates"] == 80 and row["difference"] < 1e-5


def test_fit(tmp_path):
    coop, adapter = rows(fit, tmp_path, "--classes", "3", "--shots", "1", "--epochs", "30", "--repeats", "1")
    assert (coop["steps"], adapter["steps"]) == (30, 200)
    assert coop["plain_seconds"] == pytest.approx(30 * coop["median_seconds"]["plain"])


@pytest.mark.slow
def test_fit_with_stored_views(tmp_path):
    size = ["--methods", "coop", "--classes", "3", "--shots", "1", "--epochs", "30", "--repeats", "1", "--views", "4"]
    (new,), (first, kept) = (rows(fit, tmp_path, *size, *more) for more in ([], ["--kept"]))
    assert (new["views"], new["kept"], first["kept"], kept["kept"]) == (4, False, False, True)
    assert kept["ours_seconds"] < first["ours_seconds"]


def test_encode(tmp_path):
    (row,) = rows(encode, tmp_path, "--images", "5", "--workers", "0", "--repeats", "1")
    assert row["difference"] < 1e-5 and row["decoding_per_second"] > 0


def test_test_time(tmp_path):
    sizes = ["--classes", "4", "--views", "24", "--images", "2", "--repeats", "1"]
    found = rows(test_time, tmp_path, *sizes)
    assert [row["method"] for row in found] == ["tpt", "rtpt", "tps"]
    for row in found:
        assert row["difference"] < 1e-3 and row["scaled"] == "1 image"
        assert row["plain_seconds"] == pytest.approx(2 * row["median_seconds"]["plain"])
    (row,) = rows(test_time, tmp_path, *sizes, "--plain-classes", "2", "--methods", "tpt")
    fixed, whole = row["median_seconds"]["tower"], row["median_seconds"]["plain"]
    assert row["plain_seconds"] == pytest.approx(2 * (fixed + 2 * (whole - fixed)))
    assert row["difference"] is None and row["scaled"] == "2 classes"


def test_online(tmp_path):
    (row,) = rows(online, tmp_path, "--classes", "6", "--views", "20", "--images", "3", "--repeats", "1", "--tower")
    assert row["difference"] < 1e-4 and row["scaled"] is None and row["median_seconds"]["tower"] > 0


def pixels(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def our_loss(clip, adaptation, images, labels):
    return functional.cross_entropy(Classifier(clip, adaptation, NAMES)(images), labels)


def test_the_plain_steps_are_the_methods(clip):
    images, labels = pixels(4), torch.tensor([0, 1, 2, 0])
    task = SimpleNamespace(class_names=NAMES, templates=[fit.TEMPLATE], words={})
    coop, context = plain.CoOp(clip, NAMES, 4), Context(clip, task, 4)
    adapter, mixed = plain.Adapter(clip, NAMES, fit.TEMPLATE), FeatureAdapter(clip, task)
    for model, adaptation in ((coop, context), (adapter, mixed)):
        adaptation.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        expected = our_loss(clip, adaptation, images, labels)
        gradients = torch.autograd.grad(expected, list(adaptation.parameters()))
        before = [value.detach().clone() for value in model.parameters()]
        assert plain.training_step(model, optimizer, images, labels).item() == pytest.approx(expected.item(), rel=1e-5)
        for value, start, gradient in zip(model.parameters(), before, gradients, strict=True):
            assert (start - value - 0.1 * gradient).abs().max() <= 1e-4 * 0.1 * gradient.abs().max() + 1e-7


def test_the_peak_of_memory_is_what_is_held_at_once():
    def step():
        first = torch.empty(8 * MB, dtype=torch.uint8)
        second = torch.empty(16 * MB, dtype=torch.uint8)
        del first
        third = torch.empty(4 * MB, dtype=torch.uint8)
        del second, third
        return torch.empty(10 * MB, dtype=torch.uint8)

    assert measure.peak_bytes(step, CPU) == 24 * MB


def test_the_peak_of_memory_has_what_is_kept_for_the_gradient():
    x = torch.zeros(MB, requires_grad=True)

    def step():
        total = x.exp().sum()  # the exponential is its own derivative, and is kept
        torch.empty(16 * MB, dtype=torch.uint8)
        torch.autograd.grad(total, x)

    assert 20 * MB <= measure.peak_bytes(step, CPU) <= 20 * MB + 1000


def test_a_first_round_is_not_counted():
    calls = []
    seconds = measure.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)
    assert "".join(calls) == "ababab" and [len(values) for values in seconds.values()] == [2, 2]


def test_a_shared_start_is_counted_once(clip):
    found = operations.packed(clip, ["a hen", "a goldfish"])
    tokens = [len(clip.tokenizer.sequence(prompt)) for prompt in ("a hen", "a goldfish")]
    start = 2  # the start token and the word a
    assert found.rows == sum(tokens) - start and found.reads == 2
    assert found.pairs == sum(n * (n + 1) // 2 for n in tokens) - start * (start + 1) // 2
    assert found.read_pairs == sum(tokens)


def test_templates_add_up(clip):
    both = ZeroShot(clip, command.task(NAMES), ["a {}", "one {} here"])
    apart = [ZeroShot(clip, command.task(NAMES), [template]) for template in both.templates]
    total = sum(operations.text(clip, one, NAMES, gradient=False).multiply_adds for one in apart)
    assert operations.text(clip, both, NAMES, gradient=False).multiply_adds == total


def test_a_memory_budget_holds(clip):
    names, budget = command.class_names(300), 10e6
    whole, chunked = (
        measure.peak_bytes(prompts.our_step(clip, "shared", names, 16, 32, gigabytes), CPU)
        for gigabytes in (None, budget / 1e9)
    )
    assert 0.5 * budget < chunked <= budget
    assert whole > 2 * budget


def test_class_names_beyond_imagenets_are_numbered():
    names = command.class_names(2500)
    assert names[:1000] == command.class_names(1000) and len(names) == 2500
    assert names[1000] == f"{names[0]} 1" and names[2499] == f"{names[499]} 2"


def test_folder(tmp_path):
    folder.main(["--images", "4000", "--out", str(tmp_path / "found.json")])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["find", "draw", "look", "first batch", "leave out"]


def test_whole_set(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_set, "alone", whole_set.measure)
    file = tmp_path / "found.json"
    whole_set.main(["--images", "60", "--classes", "5", "--width", "16", "--out", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in rows] == [*whole_set.METHODS]
    assert all(row["seconds"] > 0 and row["memory_mb"] >= 0 and len(row["accuracies"]) == 2 for row in rows)


@pytest.mark.slow
def test_a_whole_set_takes_no_memory_for_all_pairs(tmp_path):
    file = tmp_path / "found.json"
    options = ["--images", "20000", "--classes", "100", "--width", "64", "--methods", "transclip", "zlap"]
    subprocess.run([sys.executable, "-m", "benchmarks.whole_set", *options, "--out", str(file)], check=True, cwd=ROOT)
    for row in json.loads(file.read_text())["rows"]:
        assert row["memory_mb"] < 0.25 * row["pairs_mb"]  # measured: 0.09


@pytest.mark.slow
def test_parts(tmp_path):
    file = tmp_path / "found.json"
    parts.main(["engine.epochs=1", "shots=1", "--out", str(file)])
    rows = {row["part"]: row for row in json.loads(file.read_text())["rows"]}
    assert list(rows) == ["imports", *parts.PARTS, "other", "together"]
    assert all(rows[name]["wall_seconds"] > 0 for name in rows)
    assert sum(row["cpu_seconds"] for row in rows.values()) == pytest.approx(2 * rows["together"]["cpu_seconds"])


def test_a_part_within_another_counts_for_itself_alone(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(parts, "clocks", lambda: (next(now), 0))
    found = parts.Parts()
    inner = found.timed("inner", lambda: iter("ab"))
    assert found.timed("outer", lambda: list(inner()))() == ["a", "b"]
    assert found.cpu == {"other": 1, "outer": 5, "inner": 4}


@pytest.mark.slow
def test_a_folder_of_100_000_images_takes_seconds_and_little_memory(tmp_path):
    file = tmp_path / "found.json"
    subprocess.run([sys.executable, "-m", "benchmarks.folder", "--out", str(file)], check=True, cwd=ROOT)
    rows = json.loads(file.read_text())["rows"]
    assert sum(row["seconds"] for row in rows if row["stage"] != "leave out") < 30  # measured: 3
    assert max(row["memory_mb"] for row in rows) < 60  # measured: 20


@pytest.mark.slow
def test_threads(tmp_path):
    file = tmp_path / "found.json"
    options = ["--backbones", "tiny", "--threads", "1", "--processes", "1", "--steps", "2"]
    threads.main([*options, "--out", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["backbone"], row["threads"], row["processes"], len(row["seconds"])) == ("tiny", 1, 1, 2)
    assert row["wall_seconds"] > 0 and row["cpu_seconds"] > 0


@pytest.mark.slow
def test_long_lives(tmp_path):
    file, plot = tmp_path / "found.json", tmp_path / "plot.png"
    options = ["--predictions", "4", "--fits", "1", "--loads", "1", "--out", str(file), "--plot", str(plot)]
    long_lives.main(options)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["work"], len(row["looks"])) for row in rows] == [("predictions", 4), ("fits", 1), ("loads", 1)]
    assert all(row["growth"]["child processes"] == 0 and row["looks"][-1]["memory"] > 0 for row in rows)
    assert plot.stat().st_size > 0


@pytest.mark.slow
def test_serve(tmp_path):
    for name in ("fastapi", "python_multipart", "uvicorn"):
        pytest.importorskip(name)
    file = tmp_path / "found.json"
    serve.main(["--requests", "64", "--clients", "1", "4", "--out", str(file)])
    rows = json.loads(file.read_text())["rows"]
    assert [row["side"] for row in rows] == [
        "bare, 1 at once",
        "bare, 64 at once",
        "served, 1 client",
        "served, 4 clients",
    ]
    assert all(row["requests"] == 64 and row["per_second"] > 0 for row in rows)
    assert all(0 < row["p50"] <= row["p99"] for row in rows[2:])
