"""A run directory of a stranger's: whatever its settings say, nothing of it is imported, called or looked up."""

import functools
import importlib
import pkgutil
import shutil
import sys
import time

import pytest
import yaml
from PIL import Image

import clipadapt
from clipadapt import config
from clipadapt.adaptations.peft import configuration
from clipadapt.cli import main
from clipadapt.config import saved_settings
from clipadapt.config.groups import GROUPS
from clipadapt.config.targets import locate
from clipadapt.data.network import cache_only, find_connection_error
from clipadapt.errors import UserError
from clipadapt.runs.directory import CONFIG, RunDirectory
from clipadapt.runs.result import read_result
from tests.manifests import renew_manifest
from tests.test_api import FEW_DRAWINGS

QUICK = [*FEW_DRAWINGS, "engine.max_steps=1", "engine.workers=0", "engine.cpu=true", "shots=1", "engine.cache=null"]
USUAL = functools.cache(config.compose)
RECKLESS = """
from pathlib import Path

Path(__file__).with_name("ran").touch()


def wipe(folder: str) -> None:
    Path(folder).joinpath("ran").touch()


class Wiper:
    def __init__(self, folder: str) -> None:
        wipe(folder)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the directory of a finished run, of which every case spoils a copy."""
    output = tmp_path_factory.mktemp("strangers")
    assert main(["data=drawn", "method=tda", *QUICK, f"output={output}"]) == 0
    (result,) = output.rglob("result.json")
    return result.parent


@pytest.fixture
def run(finished, tmp_path):
    """Return a copy of the run."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def refused(run, tmp_path, capsys, monkeypatch):
    """Write settings into the run, and return what loading, evaluating and predicting say, which must be the same."""
    monkeypatch.setattr(config, "compose", USUAL)
    image = tmp_path / "image.png"
    Image.new("RGB", (32, 32)).save(image)

    def refusal(settings: str | dict, *options: str) -> str:
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False)
        (run / CONFIG).write_text(text)
        renew_manifest(run)
        before, began = {*sys.modules}, time.monotonic()
        with pytest.raises(UserError) as caught:
            clipadapt.load(run, config_dir=options[1] if options else None)
        message = str(caught.value)
        for command in (["evaluate", f"run={run}"], ["predict", f"run={run}", f"images={image}"]):
            capsys.readouterr()
            assert main([*command, *options]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert " ".join(message.split()) in said and "Traceback" not in said
        assert time.monotonic() - began < 20
        assert str(run / CONFIG) in message and "\n" not in message and len(message) < 3000
        new = {name for name in sys.modules if name not in before}
        assert not [name for name in new if name.startswith(("clipadapt.cli", "clipadapt.__main__", "reckless"))]
        return message

    return refusal


@pytest.fixture
def settings(run):
    """Return the run's settings, to be changed."""
    return RunDirectory(run).config()


def put(table: dict, path: str, value: object) -> dict:
    """Set a value at a dotted path of a table, and return the table."""
    *tables, key = path.split(".")
    inner = table
    for name in tables:
        inner[name] = inner[name] or {}
        inner = inner[name]
    inner[key] = value
    return table


PLACES = [
    "method.adaptation",
    "method.also.more",
    "method.objective",
    "method.gradient_rule",
    "method.average",
    "method.test_time",
    "method.test_time.positive",
    "method.adaptation.n_ctx",
    "engine",
    "engine.optimizer",
    "engine.schedule",
    "data",
    "data.name",
    "task",
    "task.views",
    "shots",
    "backbone",
    "backbone.pretrained",
    "experiment",
]
TARGETS = [
    "clipadapt.runs.directory.RunDirectory.remove",
    "clipadapt.runs.directory.RunDirectory",
    "clipadapt.cli.main",
    "clipadapt.__main__",
    "clipadapt.__main__.main",
    "clipadapt.config.building.build",
    "clipadapt.config.composing.read_yaml",
    "clipadapt.config.tree.own_modules",
    "clipadapt.files.write",
    "os.system",
    "shutil.rmtree",
    "torch.load",
    "reckless.Wiper",
]


def test_as_it_was_it_is_taken(run):
    assert clipadapt.load(run).class_names
    assert read_result(run).config == RunDirectory(run).config()


@pytest.mark.parametrize("place", PLACES)
def test_no_place_takes_a_target_of_another_kind(place, run, refused, settings, tmp_path, monkeypatch):
    folder = tmp_path / "reckless"
    folder.mkdir()
    (folder / "reckless.py").write_text(RECKLESS)
    monkeypatch.chdir(folder)
    (tmp_path / "kept").mkdir()
    kept = {"_target_": "clipadapt.runs.directory.RunDirectory", "path": str(tmp_path / "kept")}
    for target in TARGETS[PLACES.index(place) % len(TARGETS)], TARGETS[0]:
        message = refused(put(settings, place, {"_target_": target, "self": kept, "folder": str(folder)}))
        assert place in message
    assert (tmp_path / "kept").is_dir() and not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("place", "target"),
    [("method.adaptation", target) for target in TARGETS]
    + [
        ("method.adaptation", "clipadapt.adaptations.base.chain"),
        ("method.adaptation", "clipadapt.adaptations.base._then"),
        ("method.adaptation", "clipadapt.adaptations.context.Context.edits"),
        ("method.adaptation", "clipadapt.adaptations.base.Adaptation"),
        ("method.adaptation", "clipadapt.adaptations.base.nn.Identity"),
        ("method.adaptation", "clipadapt.adaptations.base.UserError"),
        ("method.adaptation", "clipadapt.adaptations.peft.peft.PeftModel"),
        ("method.adaptation", "clipadapt.adaptations.peft.copy.deepcopy"),
        ("method.adaptation", "clipadapt.adaptations.peft.save"),
        ("method.adaptation", "clipadapt.objectives.CrossEntropy"),
        ("method.adaptation", "clipadapt.adaptations..base.ZeroShot"),
        ("method.adaptation", "clipadapt.adaptations.nowhere.ZeroShot"),
        ("method.adaptation", "clipadapt"),
        ("method.adaptation", ""),
        ("method.adaptation", 5),
        ("method.adaptation", ["clipadapt.adaptations.base.ZeroShot"]),
        ("method.objective", "clipadapt.adaptations.base.ZeroShot"),
        ("method.objective", "clipadapt.objectives.averages.GaussianAverage"),
        ("method.average", "clipadapt.objectives.base.WeightAverage"),
        ("method.test_time", "clipadapt.test_time.caches.Cache"),
        ("method.test_time.positive", "clipadapt.test_time.voting.Voting"),
        ("method.test_time.positive", "clipadapt.runs.predictor.Predictor"),
        ("engine", "clipadapt.runs.directory.RunDirectory"),
        ("engine.optimizer", "torch.optim.lr_scheduler.LambdaLR"),
        ("engine.optimizer", "torch.optim.Optimizer"),
        ("engine.optimizer", "torch.optim.swa_utils.AveragedModel"),
        ("engine.schedule", "clipadapt.engine.schedules.shortened"),
        ("engine.schedule", "clipadapt.engine.schedules.SGD"),
        ("data", "clipadapt.data.sources.from_folder"),
        ("data", "clipadapt.data.mirror.fetch"),
        ("data", "clipadapt.data.prepared.source"),
        ("data", "clipadapt.data.tasks.Source"),
        ("backbone", "clipadapt.backbone.dual_encoder.DualEncoder"),
        ("backbone", "clipadapt.backbone.open_clip.build"),
        ("backbone", "clipadapt.backbone.open_clip.splicer"),
        ("backbone", "clipadapt.backbone.network.hub"),
        ("backbone", "clipadapt.backbone.attention.Block"),
        ("backbone", "clipadapt.data.sources.from_folder"),
    ],
)
def test_a_target_is_a_class_of_its_group(place, target, refused, settings):
    assert f"{place}._target_: " in refused(put(settings, f"{place}._target_", target))


@functools.cache
def every_name():
    """Return each name of each module of the package, and what it names."""
    modules = [module.name for module in pkgutil.walk_packages(clipadapt.__path__, "clipadapt.")]
    found = [importlib.import_module(name) for name in modules if not name.endswith("__main__")]
    return {f"{module.__name__}.{word}": value for module in found for word, value in vars(module).items()}


def is_taken(name, group):
    try:
        return locate(name, group) is not None
    except UserError:
        return False


@pytest.mark.parametrize("place", GROUPS)
def test_of_every_name_of_the_package_the_group_takes_its_own(place):
    group, names = GROUPS[place], every_name()
    near = [name for name in names if name.startswith(f"{group.room}.")]
    taken = [names[name] for name in [*near, *[*names][::50]] if is_taken(name, group)]
    known = {id(names[name]) for name in group.known_functions}
    for found in taken:
        derived = isinstance(found, type) and issubclass(found, group.base_class)
        assert id(found) in known or (derived and (group.itself or found is not group.base_class))
    assert len(names) > 5000 and len(taken) < 150


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("method.adaptation._args_", [1]),
        ("method.adaptation._recursive_", False),
        ("method.adaptation._convert_", "all"),
        ("method.adaptation._partial_", True),
        ("method.adaptation._partial_", "true"),
        ("engine.optimizer._partial_", False),
        ("engine.optimizer._partial_", 1),
        ("engine.optimizer.params", [1]),
        ("method.test_time.positive._partial_", True),
        ("method.adaptation", "clipadapt.adaptations.base.ZeroShot"),
        ("method.adaptation", []),
        ("method.adaptation", {}),
        ("method.adaptation", None),
        ("method.also", {"adaptation": {"_target_": "clipadapt.adaptations.base.ZeroShot"}}),
        ("method.also", {"a.b": {"_target_": "clipadapt.adaptations.base.ZeroShot"}}),
        ("method.also", {"more": 5}),
        ("method.also", {"more": None}),
        ("method.also", {"more": {"deeper": {"_target_": "clipadapt.adaptations.base.ZeroShot"}}}),
        ("method", []),
        ("method.test_time", "tda"),
        ("engine.optimizer", "adam"),
        ("engine", 5),
        ("data", {}),
        ("data", {"name": "shapes", "root": "x"}),
        ("data", {"name": 5}),
        ("data.templates", ["a {}", [{"_target_": "builtins.print"}]]),
        ("backbone", {"name": ["tiny"], "pretrained": None, "seed": 0}),
        ("backbone._target_", "clipadapt.backbone.open_clip.CLIP"),
        ("backbone.seed", "???"),
        ("shots", "${oc.env:HOME}"),
        ("shots", None),
        ("seed", 1.5),
        ("method.title", "${oc.create:{_target_:os.system}}"),
        ("more", 5),
        ("method.1", 5),
    ],
)
def test_what_settings_may_hold(path, value, refused, settings):
    refused(put(settings, path, value))


@pytest.mark.parametrize("key", ["backbone", "data", "engine", "method", "shots", "classes", "seed"])
def test_a_missing_group_is_told(key, refused, settings):
    del settings[key]
    assert f"{key} is missing" in refused(settings)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "reference"),
        ("a: &a [*a]\n", "reference"),
        ("<<: {shots: 1}\nshots: 2\n", "merge"),
        ("a: !!python/object/apply:os.system [touch ran]\n", "tag"),
        ("a: !!python/name:os.system\n", "tag"),
        ("a: !!str 5\n", "tag"),
        ("a: !!set {b}\n", "tag"),
        ("a: 2001-01-01\n", "timestamp"),
        ("shots: 1\nshots: 2\n", "twice"),
        ("1.5: 2\n", "key"),
        ("null: 2\n", "key"),
        ("true: 2\n", "key"),
        ("[1, 2]: 3\n", "key"),
        ("? {a: 1}\n: 3\n", "key"),
        ("- 1\n- 2\n", "table"),
        ("text\n", "table"),
        ("", "table"),
        ("5", "table"),
        ("a: [1\n", "line"),
        ("a: b: c\n", "line"),
        ("a: 1\n---\nb: 2\n", "document"),
        ("a: \x07\n", "can't be read"),
        ("a: " + "[" * 100_000, "nest"),
        ("{a: " * 100_000, "nest"),
        ("a: " + "9" * 10_000 + "\n", "can't be read"),
        ("a: '" + "x" * 9_000_000 + "'\n", "larger"),
        ("".join(f"k{number}: 1\n" for number in range(3_000)), "keys"),
        ("[" + "1, " * 200_000 + "]", "values"),
        ("k" * 100_000 + ": 1\n", "line"),
        ("a: ${oc.create:{_target_:os.system}}\n", "interpolation"),
        ("a: '${oc.decode:x}'\n", "interpolation"),
        ("${a}: 1\n", "interpolation"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_of_anything_but_plain_values(text, said, refused):
    assert said in refused(text)


def test_bytes_that_are_no_text(run, tmp_path):
    (run / CONFIG).write_bytes(b"\xff\xfe\x00a: 1")
    renew_manifest(run)
    with pytest.raises(UserError, match=r"config\.yaml can't be"):
        clipadapt.load(run)
    (run / CONFIG).unlink()
    (run / CONFIG).mkdir()
    with pytest.raises(UserError, match=r"config\.yaml can't be read"):
        clipadapt.load(run)


def test_settings_allow_nothing_themselves(run, refused, settings, tmp_path, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "reckless.py").write_text(RECKLESS)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    settings |= {"allowed_targets": ["reckless", "os", "clipadapt"], "config_dir": str(folder)}
    for target in ("reckless.Wiper", "os.system", "clipadapt.cli.main"):
        message = refused(put(settings, "method.adaptation", {"_target_": target, "folder": str(folder)}))
        assert "is not allowed (allowed: clipadapt.adaptations;" in message and "--config-dir" in message
    assert not (folder / "ran").exists() and "reckless" not in sys.modules


@pytest.mark.parametrize("target", ["wipe", "Wiper", "Path", "_hidden.Wiper", "__main__"])
@pytest.mark.parametrize("place", ["method.adaptation", "data", "engine.schedule"])
def test_of_the_readers_own_modules_only_classes_of_the_group(target, place, refused, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_careful.py").write_text(RECKLESS.replace('Path(__file__).with_name("ran").touch()', ""))
    put(settings, place, {"_target_": f"own_careful.{target}", "folder": str(folder)})
    assert f"{place}._target_: own_careful.{target} " in refused(settings, "--config-dir", str(folder))
    assert not (folder / "ran").exists()
    sys.modules.pop("own_careful", None)


def test_what_a_user_writes_may_refer_to_the_environment(monkeypatch):
    monkeypatch.setenv("CLIPADAPT_DATA", "/large")
    assert config.compose(["data=oxford_pets"])["data"]["home"] == "/large"


@pytest.mark.parametrize("option", ["megatron_core", "auto_mapping", "adapters"])
def test_no_module_is_imported_by_way_of_peft(option):
    with pytest.raises(UserError, match=rf"no option config\.{option}"):
        configuration({"peft_type": "XLORA" if option == "adapters" else "LORA", option: "reckless"})


@pytest.mark.parametrize("name", ["hf-hub:some/model", "local-dir:/tmp/model", ":"])
def test_a_run_names_no_address(name, refused, settings, tmp_path):
    message = refused(put(settings, "backbone", {**settings["backbone"], "name": name, "pretrained": None}))
    assert f"backbone.name={name} is an address, and a run can't choose one by itself" in message
    (tmp_path / "own" / "backbone").mkdir(parents=True)
    usual = (config.conf_dir() / "backbone" / "open_clip.yaml").read_text()
    (tmp_path / "own" / "backbone" / "mine.yaml").write_text(usual.replace("name: ???", f"name: '{name}'"))
    assert saved_settings(settings, tmp_path, tmp_path / "own")["backbone"]["name"] == name


def test_a_run_chooses_no_folder_to_write_to_and_downloads_nothing(settings, tmp_path):
    theirs = {"_target_": "clipadapt.data.vision.torchvision", "name": "DTD", "download": True, "cache_dir": "/theirs"}
    data = saved_settings(put(settings, "data", theirs), tmp_path)["data"]
    assert data == {**theirs, "download": False}
    theirs = {"_target_": "clipadapt.data.shards.webdataset", "root": "x.tar", "cache_dir": "/theirs"}
    assert "cache_dir" not in saved_settings(put(settings, "data", theirs), tmp_path)["data"]


def test_a_run_asks_the_hub_for_nothing(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", None)
    with cache_only():
        assert "name the data yourself" in find_connection_error("https://theirs")


def test_a_run_of_its_authors_own_modules_asks_for_them(refused, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    put(settings, "method.adaptation", {"_target_": "my_adaptations.Mine"})
    put(settings, "method.also", {"more": {"_target_": "others.deep.Theirs"}})
    message = refused(settings)
    assert "made with modules of its author's own (my_adaptations, others): if you trust them" in message
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my_adaptations.py").write_text("")
    assert "author's own (others): " in refused(settings, "--config-dir", str(tmp_path / "own"))
