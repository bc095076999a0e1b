"""A fit that starts with what a finished run learned."""

import shutil

import pytest

import clipadapt
from clipadapt.cli import main
from clipadapt.errors import UserError

CPU = {"cpu": True, "workers": 0}


@pytest.fixture(scope="module")
def backbone():
    return clipadapt.load_backbone()


@pytest.fixture(scope="module")
def adapter(backbone, tmp_path_factory):
    """A run of a few steps on half of the classes, and its directory."""
    task = clipadapt.load_task("digits", shots=1, classes="base")
    result = clipadapt.finetune(backbone, task, "clip_adapter", epochs=2, **CPU)
    return result, result.save(tmp_path_factory.mktemp("runs") / "adapter")


def test_a_fit_goes_on_from_what_was_learned_with_new_classes(backbone, adapter):
    before, run = adapter
    task = clipadapt.load_task("digits", shots=1)
    overrides = ["engine.optimizer.lr=1e-9", "engine.schedule.warmup_epochs=0"]
    after = clipadapt.finetune(backbone, task, "clip_adapter", overrides, from_run=run, epochs=1, **CPU)
    fresh = clipadapt.finetune(backbone, task, "clip_adapter", overrides, epochs=1, **CPU)
    assert len(after.record["class_names"]) == 10 != len(before.record["class_names"])
    for name, learned in before.tensors.items():
        assert (after.tensors[name] - learned).abs().max() < 1e-6 < (fresh.tensors[name] - learned).abs().max()


@pytest.mark.slow
def test_the_command_starts_from_a_run_in_a_directory_of_its_own(adapter, tmp_path):
    words = [
        "method=clip_adapter",
        "shots=1",
        "engine.epochs=1",
        "engine.cpu=true",
        "engine.workers=0",
        f"output={tmp_path}",
    ]
    assert main([*words, f"from={adapter[1]}"]) == 0
    assert main(words) == 0
    assert len([*tmp_path.rglob("result.json")]) == 2


def test_a_start_that_has_changed_since_is_told(adapter, tmp_path, capsys):
    start = shutil.copytree(adapter[1], tmp_path / "start")
    words = ["method=clip_adapter", "shots=1", "engine.epochs=1", "engine.cpu=true", "engine.workers=0"]
    words += [f"output={tmp_path / 'runs'}", f"from={start}"]
    assert main(words) == 0
    assert main(words) == 0
    assert "has changed since" not in capsys.readouterr().out
    (start / "adaptation.safetensors").write_bytes(b"something else")
    assert main(words) == 0
    assert "from which this run started, has changed since" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "method, options, message",
    [
        ("linear_probe", {}, "linear_probe isn't fitted by gradient"),
        ("taskres", {"epochs": 1}, "what taskres learns belongs to its classes, and they differ .five, six"),
        ("coop", {"epochs": 1}, "was learned by clip_adapter, and this is coop: add method=clip_adapter"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(method, options, message, backbone, adapter):
    task = clipadapt.load_task("digits", shots=1)
    with pytest.raises(UserError, match=message):
        clipadapt.finetune(backbone, task, method, from_run=adapter[1], **options, **CPU)


def test_another_backbone_is_refused(adapter):
    task = clipadapt.load_task("digits", shots=1)
    other = clipadapt.load_backbone("tiny", pretrained=None)
    with pytest.raises(UserError, match="was learned on the backbone tiny with other weights"):
        clipadapt.finetune(other, task, "clip_adapter", from_run=adapter[1], epochs=1, **CPU)


def test_no_run_is_told(tmp_path, capsys):
    words = ["shots=1", "engine.epochs=1", "engine.cpu=true", "engine.workers=0", f"output={tmp_path}"]
    assert main([*words, "from=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
