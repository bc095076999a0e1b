"""The command line: commands, what they hand on, what they say to mistakes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.cli import listing
from clipadapt.cli.main import main
from clipadapt.cli.predicting import image_paths
from clipadapt.errors import UserError, WriteError

ROOT = Path(clipadapt.__file__).resolve().parent.parent


class Api(SimpleNamespace):
    """Stands in for clipadapt.api and the modules of runs that commands import; records their arguments."""

    def __init__(self) -> None:
        super().__init__(runs=[], evaluated=[], error=None)

    def run(self, config, directory, console):
        self.runs.append((config, directory))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(metrics={})

    def evaluate_finished(
        self, directory, data=None, console=None, config_dir=None, skip_broken=False, pretrained=None
    ):
        self.evaluated.append((directory, data))

    def load(self, directory, config_dir=None, pretrained=None):
        rows = torch.tensor([[0.25, 0.75], [0.875, 0.125]])
        kind = SimpleNamespace(probabilities=True)
        return SimpleNamespace(
            kind=kind,
            class_names=["cat", "dog"],
            words={},
            predict_proba=lambda paths: rows[: len(paths)],
            reset=lambda length: None,
        )


@pytest.fixture(autouse=True)
def evaluate_targets(tmp_path, monkeypatch):
    """Every command runs from a folder with nothing in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["clipadapt"])
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def api(monkeypatch):
    stub = Api()
    for name in ("clipadapt.api", "clipadapt.runs.run", "clipadapt.runs.finished"):
        monkeypatch.setitem(sys.modules, name, stub)
    monkeypatch.setattr(clipadapt, "api", stub, raising=False)
    return stub


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


WITHOUT_TORCH = [
    ["--help"],
    ["fit", "--help"],
    ["compare", "--help"],
    ["evaluate", "-h"],
    ["predict", "--help"],
    ["methods", "--help"],
    ["data", "--help"],
    ["data", "list"],
    ["--cfg", "job"],
    ["--version"],
]


def test_nothing_waits_for_torch():
    code = f"""import contextlib, io, sys
from clipadapt.cli import main
for arguments in {WITHOUT_TORCH}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(arguments)
    assert code == 0 and said.getvalue(), arguments
    loaded = {{"torch", "open_clip", "accelerate", "numpy"}} & {{*sys.modules}}
    assert not loaded, (arguments, loaded)
print("done")"""
    done = in_a_process(code)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def test_tab_completion_does_not_wait_for_torch():
    code = """import sys
from clipadapt.cli import main
main(["-sc", "query=bash"])
assert "torch" not in sys.modules"""
    done = in_a_process(code, COMP_LINE="clipadapt method=coo")
    assert done.stdout.split() == ["method=coop"], done.stderr


def test_completion_can_be_installed(capsys):
    assert main(["--shell-completion", "install=bash"]) == 0
    assert "complete -o nospace" in capsys.readouterr().out


def test_module_is_the_command():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "clipadapt", "shot=4"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert "did you mean 'shots'?" in done.stderr and "Traceback" not in done.stderr


def test_help_is_for_people(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for part in ("clipadapt -m shots=1,2,4,8,16 seed=1,2,3", "ViT-B-16", "visual_prompting", "evaluate", "README.md"):
        assert part in said
    assert "_target_" not in said


def test_help_lists_a_folder_of_ones_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(listing, "read_facts", lambda clip, method, folder: None)  # builds each method
    (tmp_path / "own" / "method").mkdir(parents=True)
    (tmp_path / "own" / "method" / "mine.yaml").write_text("# @package _global_\nmethod: {name: mine, title: Mine}\n")
    assert main(["--help", "--config-dir", "own"]) == 0
    assert "mine" in capsys.readouterr().out
    assert main(["methods", "-cd", "own"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["mine", "Mine"] for line in lines)


@pytest.mark.parametrize("command", [[], ["fit"]])
def test_fit_is_the_default(api, tmp_path, command):
    assert main([*command, "shots=4", "+experiment=coop_digits"]) == 0
    [(config, directory)] = api.runs
    assert type(config) is dict and config["shots"] == 4
    assert directory.as_posix() == "outputs/digits/tiny/coop/shots4-seed1"
    assert not [*tmp_path.iterdir()]


def test_a_sweep_runs_every_combination_and_leaves_nothing(api, tmp_path):
    assert main(["-m", "shots=1,2", "seed=1,2,3", "engine.cpu=true"]) == 0
    assert [(run[0]["shots"], run[0]["seed"]) for run in api.runs] == [(s, d) for s in (1, 2) for d in (1, 2, 3)]
    assert len({run[1] for run in api.runs}) == 6
    assert not [*tmp_path.iterdir()]


def test_options_may_stand_anywhere(api):
    assert main(["shots=1,2", "--multirun", "seed=2"]) == 0
    assert [run[0]["seed"] for run in api.runs] == [2, 2]


def test_every_value_of_a_sweep_is_checked_first(api, capsys):
    assert main(["-m", "shots=1,0", "method=coop,cop", "engine.epochs=1,x,2"]) == 2
    said = capsys.readouterr().err
    assert not api.runs
    for part in ("3 things need mending", "shots=0", "no method 'cop'", "engine.epochs=x"):
        assert part in said


def test_a_mistake_in_one_run_does_not_stop_the_others(api, capsys):
    api.error = UserError("no such images")
    assert main(["-m", "seed=1,2"]) == 2
    assert len(api.runs) == 2
    assert capsys.readouterr().err == "clipadapt: no such images\n"


def test_a_full_disk_ends_a_sweep(api, capsys):
    api.error = WriteError("no room")
    assert main(["-m", "seed=1,2"]) == 2
    assert len(api.runs) == 1
    assert capsys.readouterr().err == "clipadapt: no room\n"


def test_temporary_files_that_can_not_be_written_are_told(api, capsys, monkeypatch):
    def fail(*arguments):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    assert main(["-m", "seed=1,2"]) == 2
    assert not api.runs
    said = "clipadapt: temporary files can't be written (No usable temporary directory found in ['/tmp']): set TMPDIR"
    assert said in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(api):
    api.error = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        main(["-m", "seed=1,2"])
    assert len(api.runs) == 1


def test_ctrl_c_says_what_is_kept(api, capsys):
    api.error = KeyboardInterrupt()
    assert main([]) == 130
    said = capsys.readouterr().err
    assert "outputs/digits/tiny/coop/shots16-seed1" in said and said.count("Stopped") == 1


def test_cfg_shows_the_settings(capsys, api):
    assert main(["--cfg", "job", "-p", "method.adaptation"]) == 0
    assert "n_ctx: 16" in capsys.readouterr().out
    assert main(["--cfg", "job", "method=cop"]) == 2
    assert "did you mean 'coop'?" in capsys.readouterr().err
    assert not api.runs


OWN_MODULE = """
from clipadapt.adaptations import Adaptation


class Nudge(Adaptation):
    def __init__(self, clip, task, by: float = 1.0): ...
"""


def test_a_method_of_ones_own_needs_no_change_here(api, tmp_path):
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "own_nudge.py").write_text(OWN_MODULE)
    text = "# @package _global_\ndefaults: [/objective@method.objective: cross_entropy, _self_]\n"
    text += "method: {name: nudge, adaptation: {_target_: own_nudge.Nudge, by: 1.0}}\n"
    (own / "method" / "nudge.yaml").write_text(text)
    assert main(["--config-dir", "own", "method=nudge", "method.adaptation.by=2"]) == 0
    [(config, directory)] = api.runs
    assert config["allowed_targets"] == ["own_nudge"]
    assert directory.as_posix().startswith("outputs/digits/tiny/nudge/shots16-seed1-")
    assert main(["--config-dir", "own", "method=nudge", "method.adaptation.by=far"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fti"], "no command 'fti': did you mean 'fit'?"),
        (["evalute", "run=x"], "did you mean 'evaluate'?"),
        (["method", "coop"], "write key=value, as in method=coop"),
        (["--epochs", "5"], "engine.epochs=5"),
        (["--config-dir"], "--config-dir needs a value"),
        (["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["methods", "shots=4"], "no key shots"),
        (["compare"], "say which methods: methods=[…], or methods=all"),
        (["compare", "methods=[cop]"], "did you mean 'coop'?"),
        (["compare", "methods=coop", "shots=few"], "shots=few does not fit"),
        (["compare", "methods=coop", "--cfg", "job"], "--cfg has no meaning here"),
        (["evaluate"], "say which run: clipadapt evaluate run="),
        (["evaluate", "run=nowhere"], "no run directory nowhere"),
        (["evaluate", "rnu=."], "did you mean 'run'?"),
        (["evaluate", "run=.", "data.root=x"], "say which data first: data=folder data.root=x"),
        (["evaluate", "run=.", "data=foldr"], "did you mean 'folder'?"),
        (["evaluate", "run=.", "shots=4"], "no key shots"),
        (["evaluate", "run=.", "-m"], "--multirun has no meaning here"),
        (["predict", "run=."], "say which images"),
        (["predict", "run=.", "images=nowhere"], "no images at nowhere"),
        (["predict", "run=.", "images=.", "format=xml"], "no format 'xml'"),
        (["predict", "--run", "x"], "no setting"),
        (["-sc"], "--shell-completion needs one of install=bash, uninstall=bash, query=bash"),
        (["--info", "-m"], "--info and --multirun can't be given together"),
        (["--cfg", "jbo"], "--cfg jbo: did you mean 'job'?"),
        (["-p", "engine"], "--package is a part of the settings that --cfg shows: add --cfg job"),
        (["--cfg", "job", "-p", "nowhere"], "--package nowhere: there is no such part of the settings"),
        (["--info", "all", "engine.epoch=5"], "did you mean 'engine.epochs'?"),
        (["-m", "seed=range(1,1000000000)"], "these settings are more than 10,000 runs"),
        (["-m", "seed=range(0,1000)", "shots=range(1,100)"], "these settings are more than 10,000 runs"),
        (["compare", "methods=coop", "seed=range(1,1000000000)"], "seed has more than 10,000 values"),
        (["shots=" + "9" * 5000], "can't be read"),
        (["x" * 5000 + "=1"], "there is no key xxx"),
        (["engine=${"], "engine=${ can't be read"),
        (["engine=${x}"], "there is no engine '${x}': the only one is 'default'"),
        (["method=linear_probe", "method.adaptation.start=???"], "method.adaptation.start"),
        (["allowed_targets=null"], "allowed_targets=null does not fit: it must be a list of text"),
        (["allowed_targets=[[a]]"], 'allowed_targets=[["a"]] does not fit'),
        (
            ["method.adaptation=padding"],
            "choose one as adaptation@method.adaptation=NAME: it is called 'pixel_frame' now",
        ),
        (["method.test_time=mta"], "choose it as +test_time@method.test_time=mta"),
        (["method=foo"], "there is no method 'foo': known are "),
        (["a\0=1"], "a\\x00=1 holds the character \\0"),
        (["data.templates=[\udcff]"], "isn't UTF-8"),
    ],
)
def test_mistakes_are_told_in_one_message(arguments, said, capsys, api):
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.startswith("clipadapt: ") and "Traceback" not in errors
    assert not api.runs


def test_hydras_help_takes_no_settings(capsys, api):
    assert main(["--hydra-help", "method=coop", "-m"]) == 0
    assert "hydra/launcher" in capsys.readouterr().out and not api.runs


def test_only_the_first_process_speaks(monkeypatch, capsys, api):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["shots=0"]) == 2
    assert main(["data", "list"]) == 0
    captured = capsys.readouterr()
    assert not captured.err and not captured.out


def test_evaluate(api, tmp_path):
    (tmp_path / "mine").mkdir()
    assert main(["evaluate", "run=mine"]) == 0
    assert main(["evaluate", "data=drawn", "data.name=glyphs", "run=mine"]) == 0
    (first, nothing), (second, data) = api.evaluated
    assert first == second == Path("mine")
    assert nothing is None
    assert data["name"] == "glyphs" and data["_target_"] == "clipadapt.data.sources.drawn"


def test_predict(api, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name, "png")
    assert main(["predict", "run=.", "images=photos", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(Path(row["image"]).name, row["class"]) for row in found] == [("a.png", "dog"), ("b.JPG", "cat")]
    assert found[0]["probabilities"] == {"cat": 0.25, "dog": 0.75}
    assert main(["predict", "run=.", "images=photos/*.png", "format=csv"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "image,class,probability,p(cat),p(dog)",
        "photos/a.png,dog,0.75,0.25,0.75",
    ]
    assert main(["predict", "run=.", "images=photos/a.png"]) == 0
    assert "75.0 %" in capsys.readouterr().out


def test_images_are_a_file_a_folder_or_a_pattern(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("deep/b.png", "deep/er/a.jpeg", "deep/other.bin"):
        (tmp_path / name).touch()
    assert image_paths("deep") == ["deep/b.png", "deep/er/a.jpeg"]
    assert image_paths("deep/**/*.jpeg") == ["deep/er/a.jpeg"]
    assert image_paths("deep/other.bin") == ["deep/other.bin"]
    with pytest.raises(UserError, match="no images"):
        image_paths("deep/*.gif")


def test_brackets_of_a_name_stand_for_themselves_before_and_after_a_star(tmp_path):
    for folder in ("my [2023] photos", "my 2 photos"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    assert image_paths("my [2023]*/*.png") == ["my 2 photos/a.png"]  # which the pattern means
    shutil.rmtree("my 2 photos")
    assert image_paths("my [2023]*/*.png") == image_paths("*[2023] photos/*.png") == ["my [2023] photos/a.png"]


def test_output_that_nobody_reads_on_ends_a_command_without_a_word():
    program = [sys.executable, "-m", "clipadapt", "data", "list"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait() == 141 and not process.stderr.read()
