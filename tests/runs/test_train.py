"""Runs of methods that change weights: what they leave, loaded again, and taken half back."""

from functools import partial

import pytest
import torch
from rich.console import Console

from clipadapt import config
from clipadapt.backbone.open_clip import CLIP
from clipadapt.backbone.towers import Tower
from clipadapt.errors import UserError
from clipadapt.features.encoder import Encoder
from clipadapt.runs.directory import RunDirectory
from clipadapt.runs.learned import learned_head
from clipadapt.runs.train import train_and_evaluate
from tests.engine.tasks import same, task
from tests.manifests import renew_manifest

FEW = ["shots=2", "engine.epochs=2", "engine.cpu=true", "engine.workers=0", "engine.cache=null", "engine.batch_size=4"]
METHODS = ["clip_lora", "peft", "full_finetuning", "bitfit"]


@pytest.fixture
def run(tmp_path):
    """Fit a small task with a backbone of its own; what was learned is in a directory, too."""

    def go(directory, *overrides):
        settings = config.compose([*FEW, *overrides])
        given = task(), RunDirectory(tmp_path / directory), Console(quiet=True)
        return train_and_evaluate(settings, CLIP.load("tiny", "embedded"), *given)

    return go


@pytest.fixture
def load(tmp_path):
    return lambda directory: learned_head(tmp_path / directory, "cpu", torch.float32, None)[0]


@pytest.mark.parametrize("method", METHODS)
def test_what_was_learned_comes_back(method, run, load, tmp_path):
    result = run("mine", f"method={method}", "engine.optimizer.lr=0.01")
    classifier = load("mine").eval()
    assert same(classifier.adaptation.state_dict(), result.tensors)
    assert (tmp_path / "mine/peft/adapter_config.json").is_file() == (method in ("clip_lora", "peft"))
    tested = task().tests["test"]
    pixels = torch.stack([classifier.clip.transform(tested[i][0]) for i in range(len(tested))])
    with torch.no_grad():
        right = classifier(pixels).argmax(dim=1) == torch.tensor(tested.labels)
    assert right.float().mean() == result.metrics["accuracy"]


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_is_taken_back(method, run):
    learned = run("learned", f"method={method}", "engine.optimizer.lr=0.01")
    undone = run("undone", f"method={method}", "engine.optimizer.lr=0.01", "method.interpolation=0")
    half = run("half", f"method={method}", "engine.optimizer.lr=0.01", "method.interpolation=0.5")
    moved = [name for name, x in learned.tensors.items() if not torch.equal(x, half.tensors[name])]
    assert moved
    for name in moved:
        middle = (learned.tensors[name] + undone.tensors[name]) / 2
        assert torch.allclose(half.tensors[name], middle, atol=1e-6), name


def test_what_has_no_start_says_so_before_the_fit(run, tmp_path):
    with pytest.raises(UserError, match="no start to go back to"):
        run("coop", "method=coop", "method.interpolation=0.5")
    assert not (tmp_path / "coop").exists()
    with pytest.raises(UserError, match="can't express"):
        run("oft", "method=peft", "method.adaptation.config.peft_type=OFT", "method.interpolation=0.5")


def test_interpolation_is_a_share():
    with pytest.raises(UserError, match=r"method\.interpolation=2 does not fit.*at most 1"):
        config.compose(["method.interpolation=2"])


@pytest.mark.parametrize("method", ["clip_lora", "full_finetuning", "peft"])
def test_in_bfloat16(method, run):
    result = run("rounded", f"method={method}", "engine.precision=bf16", "method.adaptation.towers=both")
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in result.tensors.values())
    assert len(result.history) == 2


def test_stopped_and_gone_on(run, monkeypatch):
    from clipadapt.runs import train as runs

    words = ["method=clip_lora", "engine.checkpoint_seconds=0"]
    expected = run("whole", *words)
    monkeypatch.setattr(runs, "_after_epoch", partial(stopping, runs._after_epoch))
    with pytest.raises(KeyboardInterrupt):
        run("broken", *words)
    monkeypatch.undo()
    assert same(run("broken", *words).tensors, expected.tensors)


def stopping(after_epoch, *given):
    """After the first epoch, which is kept."""
    after = after_epoch(*given)

    def stop(progress):
        after(progress)
        raise KeyboardInterrupt

    return stop


def test_a_missing_point_is_told_with_the_methods_that_work():
    clip = CLIP.load("tiny", "embedded")
    clip.towers["image"] = Tower("image", {"pixels": clip.image.run})
    config_of_vpt = config.compose([*FEW, "method=vpt"])
    with pytest.raises(
        UserError, match="no point 'patches' \\(it has pixels, features\\); methods that work"
    ) as caught:
        train_and_evaluate(config_of_vpt, clip, task(), None, Console(quiet=True))
    told = str(caught.value).partition("with this backbone: ")[2].split(", ")
    assert {"coop", "clip_adapter", "tip_adapter", "zero_shot"} <= {*told}
    assert not {"vpt", "maple", "clip_lora"} & {*told}


def test_tuners_with_sparse_weights(run):
    assert run("sparse", "method=peft", "method.adaptation.config.peft_type=SHIRA").tensors


@pytest.mark.parametrize("name", ["result.json", "adaptation.safetensors"])
def test_a_damaged_file_is_told(name, run, load, tmp_path):
    run("mine", "method=clip_adapter")
    (tmp_path / "mine" / name).write_bytes(b"{")
    with pytest.raises(
        UserError, match=rf"{name} is damaged .*, or delete .*mine and give the command of the run again"
    ):
        load("mine")


def test_what_nothing_trains_is_told(run):
    with pytest.warns(UserWarning, match=r"engine\.epochs is 0, so that nothing is learned of pixels\."):
        run(
            "idle",
            "method=zero_shot",
            "engine.epochs=0",
            "+adaptation@method.also.pixels=pixel_frame",
            "method.also.pixels.size=2",
        )


def test_an_optimiser_that_refuses_its_settings(run, tmp_path):
    with pytest.raises(
        UserError, match=r"engine\.optimizer can't be made with its settings: Invalid learning rate: -1"
    ):
        run("negative", "engine.optimizer.lr=-1")
    assert not (tmp_path / "negative").exists()


def test_a_method_without_an_objective_has_the_default_one_of_its_kind_of_task(run):
    default = run("default", "method=coop", "method.objective=null")
    named = run("named", "method=coop")
    assert [row["loss"] for row in default.history] == [row["loss"] for row in named.history]


def test_a_missing_teacher_is_told_before_an_image_is_encoded(run, monkeypatch, tmp_path):
    monkeypatch.setattr(Encoder, "compute", lambda *given: pytest.fail("an image is encoded"))
    teachers = "method.objective.teachers=[{name: tiny, pretrained: absent.pt}]"
    with pytest.raises(UserError, match=r"in method\.objective\.teachers: .*no weights 'absent\.pt'"):
        run("absent", "method=promptkd", teachers)
    with pytest.raises(UserError, match=r"method\.objective\.teachers is empty"):
        run("empty", "method=promptkd", "method.objective.teachers=[]")
    with pytest.raises(UserError, match=r"in method\.test_time\.teacher: .*no weights 'absent\.pt'"):
        run("reward", "method=rlcf", "method.test_time.teacher={name: tiny, pretrained: absent.pt}")
    assert not [*tmp_path.iterdir()]


def test_learned_tensors_that_do_not_fit_the_settings(run, tmp_path):
    run("changed", "method=clip_adapter")
    file = tmp_path / "changed" / "config.yaml"
    file.write_text(file.read_text().replace("reduction: 4", "reduction: 8"))
    renew_manifest(file.parent)
    with pytest.raises(UserError, match="don't fit its settings"):
        learned_head(tmp_path / "changed", "cpu", torch.float32, None)
