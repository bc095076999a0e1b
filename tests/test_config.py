"""Settings: every YAML against its target, everything wrong told at once, directories from settings alone."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from clipadapt import config, studies
from clipadapt.cli import launching, main
from clipadapt.config.check import by_place, check_node, nodes
from clipadapt.config.groups import GROUPS, group_at
from clipadapt.config.targets import annotations, locate
from clipadapt.config.values import check_value
from clipadapt.errors import UserError
from clipadapt.files import TablePath
from clipadapt.interfaces import Templates
from tests.small import NEEDED as NEEDED_TEXTS

FILES = sorted(
    path.relative_to(config.conf_dir()).with_suffix("").as_posix() for path in config.conf_dir().rglob("*.yaml")
)
TARGETS = [name for name in FILES if "_target_" in OmegaConf.load(config.conf_dir() / f"{name}.yaml")]
METHODS = [name.removeprefix("method/") for name in FILES if name.startswith("method/")]
OPTIMIZER = {"_partial_": True, "lr": 0.1}
PLACES = {
    "backbone": "backbone",
    "kind": "kind",
    "data": "data",
    "engine": "engine",
    "optimizer": "engine.optimizer",
    "schedule": "engine.schedule",
}

OWN_MODULE = """
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clipadapt.adaptations import Adaptation
from clipadapt.errors import UserError


class Shift(Adaptation):
    '''A stub of an adaptation.'''

    def __init__(self, clip, task, amount: float = 1.0, words: str | None = None) -> None:
        if amount < 0:
            raise UserError("amount must not be negative")
        self.given = (clip, task, amount)


def make(optimizer: Optimizer, epochs: int, factor: int) -> LRScheduler:
    '''A stub of a function that waits for arguments.'''
    return optimizer, epochs * factor


def count(optimizer: Optimizer, epochs: int) -> int:
    '''A stub of a function of another kind.'''
"""
OWN_METHOD = """
# @package _global_
defaults:
  - /adaptation@method.adaptation: shift
  - /objective@method.objective: cross_entropy
  - _self_
method: {name: shifting}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's folder with a method, an adaptation and the module it names."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, text in {
        "own_shift.py": OWN_MODULE,
        "method/shifting.yaml": OWN_METHOD,
        "adaptation/shift.yaml": "_target_: own_shift.Shift\namount: 1.0\nwords: null\n",
    }.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield tmp_path / "own"
    sys.modules.pop("own_shift", None)


def complaint(*overrides: str, **options) -> str:
    with pytest.raises(UserError) as caught:
        config.compose(overrides, **options)
    return str(caught.value)


def test_the_tree_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (config.conf_dir() / "config.yaml").is_file()
    assert config.compose()["shots"] == 16


def test_all_files_are_tested():
    assert len(FILES) > 80
    assert len(TARGETS) > 40


@pytest.mark.parametrize("name", TARGETS)
def test_keys_are_the_targets_parameters(name):
    node = OmegaConf.to_container(OmegaConf.load(config.conf_dir() / f"{name}.yaml"))
    folder = name.split("/")[0]
    group = group_at(PLACES.get(folder, f"method.{folder}"))
    target = locate(node["_target_"], group)
    keys = {key for key in node if key not in ("_target_", "_partial_", "defaults")}
    if name == "engine/default":
        keys |= {"optimizer", "schedule"}  # through its defaults list
    parameters = {
        key: part
        for key, part in inspect.signature(target).parameters.items()
        if key not in by_place(target, group.arguments)
    }
    parameters = {
        key: part for key, part in parameters.items() if part.kind not in (part.VAR_POSITIONAL, part.VAR_KEYWORD)
    }
    assert node.get("_partial_", False) is group.waits
    if name.startswith("optimizer/"):
        assert keys <= {*parameters}, "torch has switches that nobody needs in a YAML"
    else:
        assert keys == {*parameters}
        assert {*parameters} <= {*annotations(target)}, "values can't be checked without annotations"


NEEDED = {
    "backbone=open_clip": ["backbone.name=RN50", "backbone.pretrained=null"],
    "data=folder": ["data.root=images"],
    "data=unlabelled": ["data.root=images", "data.class_names=[cat,dog]"],
    "data=csv": ["data.root=labels.csv"],
    "data=webdataset": ["data.root=shards"],
    "data=torchvision": ["data.name=CIFAR10"],
    "data=huggingface": ["data.name=org/dataset"],
}
"""Settings that a file leaves to users."""


def words_of(group: str) -> list[list[str]]:
    """The words that choose each file of a group."""
    place = {"optimizer": "optimizer@engine.optimizer", "schedule": "schedule@engine.schedule"}
    place |= {"objective": "objective@method.objective", "templates": "+templates"}
    place |= {beside: f"+{beside}@method.{beside}" for beside in ("test_time", "gradient_rule", "average")}
    found = [f"{place.get(group, group)}={option}" for option in config.options(group)]
    found = [word.replace("schedule@engine.schedule=quick", "+schedule=quick") for word in found]
    return [[word, *NEEDED.get(word, [])] for word in found]


def words_of_adaptation(option: str) -> list[str]:
    """The words that add an adaptation, under its own name."""
    needed = [f"method.also.{option}.{NEEDED_TEXTS[option]}={{}}"] if option in NEEDED_TEXTS else []
    return [f"+adaptation@method.also.{option}={option}", *needed]


def settings_of_every_file() -> list[list[str]]:
    """Few settings with every file between them: each has at most one file of a group, and several adaptations."""
    ways = [words_of(group) for group in sorted({name.split("/")[0] for name in FILES if name.count("/") == 1} - ALONE)]
    count = max(map(len, ways))
    settings = [[word for way in ways for word in (way[place] if place < len(way) else [])] for place in range(count)]
    for place, option in enumerate(config.options("adaptation")):
        settings[-1 - place % count] += words_of_adaptation(option)
    return settings


ALONE = {"adaptation", "method", "recipe", "experiment"}
"""Groups of which one setting has several files, or whose every file is composed in a test of its own."""


def test_every_setting_of_a_kind_is_among_those_composed():
    chosen = {word.partition("=")[2] for words in settings_of_every_file() for word in words}
    assert {name.split("/")[1] for name in FILES if name.count("/") == 1 and name.split("/")[0] not in ALONE} <= chosen
    assert {*config.options("adaptation")} <= chosen


@pytest.mark.parametrize("words", settings_of_every_file(), ids=lambda words: words[0])
def test_every_file_composes(words):
    composed = config.compose(words)
    for word in words:
        key, _, option = word.partition("=")
        if key == "backbone" and option != "open_clip":
            assert composed["backbone"]["name"] == option


NOT_ON_ARXIV = ["mma"]


def test_methods_name_their_paper():
    found = {method["name"]: method for method in config.methods()}
    assert sorted(found) == METHODS
    for name, method in found.items():
        assert method["title"] and method["paper"] and (method["arxiv"] or name in NOT_ON_ARXIV), name


def test_a_run_has_one_of_a_group():
    with pytest.raises(UserError, match=r"data=\[digits,drawn\]: a run has one data; -m data=digits,drawn runs each"):
        config.compose(["data=[digits,drawn]"])


TABLE = {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}


@pytest.mark.parametrize(
    ("method", "epochs", "batch_size", "lr", "weight_decay"),
    [
        ("coop", TABLE, 32, 0.002, 5e-4),
        ("clip_adapter", TABLE, 32, 0.002, 5e-4),
        ("visual_prompting", 1000, 256, 40, 0),
        ("zero_shot", 0, 32, 0.002, 5e-4),
    ],
)
def test_a_methods_paper_sets_the_engine(method, epochs, batch_size, lr, weight_decay):
    engine = config.compose([f"method={method}"])["engine"]
    optimizer = engine["optimizer"]
    assert (engine["epochs"], engine["batch_size"]) == (epochs, batch_size)
    assert (optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (lr, 0.9, weight_decay)


def test_the_user_has_the_last_word():
    composed = config.compose(["engine.epochs=5", "method=coop", "method.adaptation.n_ctx=4", "engine.optimizer.lr=1"])
    assert composed["engine"]["epochs"] == 5
    assert composed["engine"]["optimizer"]["lr"] == 1
    assert composed["method"]["adaptation"]["n_ctx"] == 4
    assert config.compose(["engine.epochs={16: 7}"])["engine"]["epochs"] == TABLE | {16: 7}


def test_adaptations_are_added():
    composed = config.compose(["+adaptation@method.also.pixels=pixel_frame", "method.also.pixels.size=8"])
    assert composed["method"]["also"]["pixels"] == {"_target_": "clipadapt.adaptations.visual.PixelFrame", "size": 8}
    assert composed["method"]["adaptation"]["n_ctx"] == 16


@pytest.mark.parametrize("plus", ["", "+"])
def test_an_experiment_is_the_run_it_describes(plus):
    composed = config.compose([f"{plus}experiment=coop_digits"])
    assert {"command", "published", "measured"} == {*composed["experiment"]}
    assert config.run_directory(composed) == config.run_directory(config.compose())
    assert config.identity(composed) == config.identity(config.compose())


def test_random_weights_of_any_backbone():
    composed = config.compose(["backbone=ViT-B-16", "backbone.pretrained=null"])
    assert composed["backbone"] == {
        "_target_": "clipadapt.backbone.open_clip.load",
        "name": "ViT-B-16",
        "pretrained": None,
        "seed": 0,
        "image_size": None,
    }


def test_another_optimizer_brings_its_own_keys():
    composed = config.compose(["optimizer@engine.optimizer=adamw", "engine.optimizer.lr=1e-3"])
    assert composed["engine"]["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert "momentum" not in composed["engine"]["optimizer"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method=cop"], ["no method 'cop'", "did you mean 'coop'?", "clip_adapter"]),
        (["data=digit"], ["no data 'digit'", "'digits'"]),
        (["backbone=ViT-B16"], ["no backbone 'ViT-B16'", "'ViT-B-16'"]),
        (["experiment=coop_digit"], ["no experiment 'coop_digit'", "'coop_digits'"]),
        (["+adaptation@method.also.x=pixel_fram"], ["no adaptation 'pixel_fram'", "'pixel_frame'"]),
        (["engine=5"], ["no engine '5'", "the only one is 'default'"]),
        (["foo@bar=x"], ["no group foo"]),
        (["optimizer=adamw"], ["optimizer@engine.optimizer"]),
        (["engine.epoch=5"], ["no key engine.epoch:", "did you mean 'engine.epochs'?", "batch_size"]),
        (["n_ctx=4"], ["no key n_ctx:", "did you mean 'method.adaptation.n_ctx'?"]),
        (["method.adaptation.nctx=4"], ["'method.adaptation.n_ctx'", "class_specific"]),
        (["shot=4"], ["did you mean 'shots'?"]),
        (["~shot"], ["no key shot", "'shots'"]),
        (["~shots"], ["shots is missing"]),
        (["+engine.epoch=5"], ["no key engine.epoch for Settings", "'epochs'"]),
        (["+engine.optimizer.nestrov=true"], ["no key engine.optimizer.nestrov for SGD", "'nesterov'"]),
        (["+shot=5"], ["no key shot", "'shots'"]),
        (["engine.cache_gb=inf"], ["engine.cache_gb", "must be a number (above 0)"]),
        (["+method.objective.weight=1"], ["no key method.objective.weight for CrossEntropy"]),
        (["+method.titel=x"], ["no key method.titel", "'title'"]),
        (["+backbone.weights=x"], ["no key backbone.weights", "pretrained"]),
        (["+shots=5"], ["shots=5", "'shots'"]),
        (["--epochs", "5"], ["'--epochs 5' is no setting", "engine.epochs=5"]),
        (["--epochs=5"], ["'--epochs=5' is no setting", "engine.epochs=5"]),
        (["-n_ctx"], ["'-n_ctx' is no setting", "method.adaptation.n_ctx="]),
        (["method", "coop"], ["'method coop' is no setting", "method=coop"]),
        (["shots", "=", "4"], ["'shots = 4' is no setting", "shots=4"]),
        (["data.root=[1"], ["data.root=[1 can't be read"]),
        (["shots=1,2"], ["several values", "-m"]),
        (["shots=${engine.foo}"], ["engine.foo"]),
        (["shots=few"], ["shots=few does not fit", "a whole number (at least 1)"]),
        (["shots=0"], ["at least 1"]),
        (["shots=1.5"], ["a whole number"]),
        (["shots=true"], ["a whole number"]),
        (["shots=null"], ["a whole number"]),
        (["seed=-1"], ["seed=-1", "at least 0"]),
        (["output=5"], ["must be text", "quote it", "output=\"'5'\""]),
        (["rerun=maybe"], ["true or false"]),
        (["task.views=-1"], ["task.views=-1", "at least 0) or null"]),
        (["task.skip_broken=1"], ["task.skip_broken=1", "true or false"]),
        (["data.views=8"], ["there is no key data.views: it is called task.views now"]),
        (["+data.views=8"], ["there is no key data.views for digits: it is called task.views now"]),
        (["data.skip_broken=true"], ["it is called task.skip_broken now"]),
        (["engine.accumulate=2"], ["it is called engine.gradient_accumulation_steps now"]),
        (["engine.recompute=true"], ["it is called engine.activation_checkpointing now"]),
        (["method=prograd", "method.gradient_rule.reported=x"], ["called method.gradient_rule.primary_loss now"]),
        (["adaptation@method.adaptation=low_rank"], ["no adaptation 'low_rank': it is called 'lora' now"]),
        (["+adaptation@method.also.pixels=padding"], ["no adaptation 'padding': it is called 'pixel_frame' now"]),
        (["data.templates=5"], ["a list of text or null"]),
        (["method.adaptation.n_ctx=four"], ["method.adaptation.n_ctx=four", "a whole number"]),
        (["method.adaptation.class_token_position=ned"], ["one of end, middle, front", "did you mean 'end'?"]),
        (["method=clip_adapter", "method.adaptation.ratio=2"], ["at least 0, at most 1"]),
        (["engine.optimizer.lr=high"], ["engine.optimizer.lr=high", "a number"]),
        (["engine.epochs={1: x}"], ["engine.epochs", "a table of a whole number"]),
        (["engine=default", "engine.optimizer=5"], ["engine.optimizer"]),
        (["method=5"], ["no method '5'"]),
        (["data=folder"], ["data.root has no value yet", "data.root="]),
        (["backbone=open_clip"], ["backbone.name has no value yet", "backbone.pretrained has no value yet"]),
        (["method.adaptation._target_=os.system"], ["os.system is not allowed"]),
        (["method.adaptation._target_=clipadapt.config.tree.sys.exit"], ["not allowed"]),
        (["method.adaptation._target_=clipadapt.adaptations.context.Contxt"], ["no Contxt", "'Context'"]),
        (["method.adaptation._target_=clipadapt.adaptation.Context"], ["clipadapt has no adaptation"]),
        (["method.adaptation._target_=clipadapt.cli.main"], ["clipadapt.cli.main is not allowed"]),
        (["method.adaptation._target_=clipadapt.objectives.CrossEntropy"], ["not allowed"]),
        (["method.adaptation._target_=clipadapt.adaptations.composed.chain"], ["not an adaptation"]),
        (["~method.adaptation._target_"], ["method.adaptation does not fit", "a table with a _target_"]),
        (["~data._target_"], ["data does not fit", "a table with a _target_"]),
        (["engine.schedule._target_=clipadapt.engine.schedules.shortened"], ["name one of", "schedules.cosine"]),
        (["engine.optimizer._partial_=false"], ["engine.optimizer._partial_ must be true"]),
        (["allowed_targets=5"], ["allowed_targets=5 does not fit"]),
        (["allowed_targets={a: b}"], ["allowed_targets={a: b}"]),
        (["engine.optimizer._target_=torch.optim.Adamw"], ["torch.optim has no Adamw"]),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else None,
)
def test_a_mistake_is_told_with_what_is_right(overrides, said):
    message = complaint(*overrides)
    for part in said:
        assert part in message
    assert "Traceback" not in message and "hydra.cc" not in message and "search path" not in message


def test_all_mistakes_are_told_at_once():
    message = complaint("method=cop", "data=foldr", "engine.epoch=5", "shots=0", "seed=x", "--epochs", "5", "n_ctx=4")
    lines = message.splitlines()
    assert lines[0] == "7 things need mending:"
    assert len(lines) == 8


def test_what_is_below_a_mistaken_choice_is_not_judged():
    message = complaint("method=clip_adaptr", "method.adaptation.ratio=0.5")
    assert "\n" not in message and "clip_adapter" in message


def test_loose_annotations_of_torch_are_checked_as_far_as_they_go():
    group = GROUPS["engine.optimizer"]
    assert not check_node("o", {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.99], **OPTIMIZER}, group)
    assert not check_node("o", {"_target_": "torch.optim.SGD", **OPTIMIZER, "lr": 1}, group)
    assert check_node("o", {"_target_": "torch.optim.SGD", **OPTIMIZER, "momentum": "much"}, group)
    assert check_node("o", {"_target_": "torch.optim.SGD", **OPTIMIZER, "nesterov": 3}, group)
    assert check_node("o", {"_target_": "torch.optim.SGD", "lr": 0.1}, group) == [
        "o._partial_ must be true for an optimizer"
    ]


@pytest.mark.parametrize(
    ("value", "annotation", "fits"),
    [
        (1, float, True),
        (1.0, int, False),
        ("1", int, False),
        (True, float, False),
        (True, int, False),
        (None, int | None, True),
        ([1, 2], tuple[int, int], True),
        ({1: 2}, dict[int, int], True),
        ("a", list[str], False),
    ],
)
def test_values_are_not_bent_into_shape(value, annotation, fits):
    assert (check_value("key", value, annotation) == []) is fits


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        (
            ["a photo"],
            Templates | None,
            r"a list of text \(with {} for the class name\) \(not empty\) or null",
        ),
        ([], Templates, r"\(not empty\)"),
        (
            {"cat": "fur"},
            dict[str, list[str]] | TablePath,
            "a table of text to a list of text or a YAML or JSON file of one",
        ),
    ],
)
def test_messages_say_what_texts_and_lists_must_be_like(value, annotation, said):
    (found,) = check_value("key", value, annotation)
    assert re.search(f"{said}$", found)


@pytest.mark.parametrize("group", ["adaptation", "objective", "test_time"])
def test_every_template_has_a_place_for_the_class_and_every_scale_is_above_zero(group):
    found = set()
    for name in TARGETS:
        if name.startswith(f"{group}/"):
            node = OmegaConf.load(config.conf_dir() / f"{name}.yaml")
            target = node["_target_"]
            hints = annotations(locate(target, GROUPS[f"method.{group}"]))
            for key, bad in {"template": "a", "answer_template": "", "templates": ["a"], "scale": -1.0}.items():
                other = target.startswith("clipadapt.adaptations.base.")  # templates are checked with the prompts
                other |= key == "scale" and node.get("scale") != 100  # it isn't CLIP's
                if key in hints and not other:
                    assert check_value(key, bad, hints[key]), (name, key)
                    found.add(key)
    assert "templates" in found and ("scale" in found or group == "objective")


@pytest.mark.parametrize(
    ("overrides", "directory"),
    [
        ([], "outputs/digits/tiny/coop/shots16-seed1"),
        (["shots=4", "seed=2", "rerun=true"], "outputs/digits/tiny/coop/shots4-seed2"),
        (["output=/runs/a", "method=clip_adapter"], "/runs/a/digits/tiny/clip_adapter/shots16-seed1"),
        (["data=drawn", "data.name=glyphs"], "outputs/drawn-glyphs/tiny/coop/shots16-seed1"),
        (["backbone=ViT-B-16"], "outputs/digits/ViT-B-16/coop/shots16-seed1"),
        (
            ["backbone=open_clip", "backbone.name=hf-hub:a/b", "backbone.pretrained=null"],
            "outputs/digits/hf-hub-a-b/coop/",
        ),
        (["data=oxford_pets", "data.home=/large"], "outputs/oxford_pets/tiny/coop/shots16-seed1"),
        (["data=imagenet_r"], "outputs/imagenet_r/tiny/coop/shots16-seed1"),
        (["data=dtd", "data.name=weaves"], "outputs/split_file-weaves/tiny/coop/shots16-seed1-"),
        (["data=imagenet", "+templates=imagenet_7"], "outputs/imagenet/tiny/coop/shots16-seed1-"),
        (["data=folder", "data.root=some/pets"], "outputs/folder-pets/tiny/coop/shots16-seed1-"),
        (["data=csv", "data.root=some/pets.csv"], "outputs/csv-pets.csv/tiny/coop/shots16-seed1-"),
        (["data=webdataset", 'data.root="a/pets-{0..9}.tar"'], "outputs/webdataset-pets--0..9-.tar/tiny/coop/"),
        (
            ["data=torchvision", "data.name=CIFAR10", "data.cache_dir=here", "data.download=false"],
            "outputs/torchvision-CIFAR10/tiny/coop/shots16-seed1",
        ),
        (
            ["data=huggingface", "data.name=ethz/food101", "data.cache_dir=here"],
            "outputs/huggingface-ethz-food101/tiny/coop/shots16-seed1",
        ),
        (["data=huggingface", "data.name=/my/pets"], "outputs/huggingface-my-pets/tiny/coop/shots16-seed1"),
        (["+adaptation@method.also.pixels=pixel_frame"], "outputs/digits/tiny/coop+pixels/shots16-seed1-"),
        (["method=visual_prompting"], "outputs/digits/tiny/visual_prompting/shots16-seed1"),
        (["engine.cpu=true", "engine.workers=0"], "outputs/digits/tiny/coop/shots16-seed1"),
    ],
)
def test_the_directory_follows_from_the_settings(overrides, directory):
    found = config.run_directory(config.compose(overrides)).as_posix()
    assert found.startswith(directory) if directory.endswith(("-", "/")) else found == directory


def test_whatever_else_is_overridden_changes_the_directory():
    sets = [
        [],
        ["engine.epochs=5"],
        ["engine.epochs=6"],
        ["backbone.pretrained=null"],
        ["task.views=null"],
        ["task.skip_broken=true"],
    ]
    sets += [["method.adaptation.n_ctx=4"], ["optimizer@engine.optimizer=adamw"], ["engine.precision=bf16"]]
    sets += [["data=folder", "data.root=a/pets"], ["data=folder", "data.root=b/pets"]]
    found = [config.run_directory(config.compose(overrides)) for overrides in sets]
    assert len({*found}) == len(sets)
    assert found[:3] == [config.run_directory(config.compose(overrides)) for overrides in sets[:3]]


def test_a_folder_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = [config.compose(["data=folder", f"data.root={root}"]) for root in ("pets", "./pets", tmp_path / "pets")]
    assert len({config.run_directory(composed) for composed in written}) == 1


def test_a_folder_of_ones_own(own):
    composed = config.compose(["method=shifting", "method.adaptation.amount=2"], config_dir=own)
    assert composed["allowed_targets"] == ["own_shift"]
    assert composed["config_dir"] == str(own)
    assert config.run_directory(composed).as_posix().startswith("outputs/digits/tiny/shifting/shots16-seed1-")
    usual = config.compose(["method=shifting"], config_dir=own)
    assert config.run_directory(usual).as_posix() == "outputs/digits/tiny/shifting/shots16-seed1"
    assert "shifting" in {method["name"] for method in config.methods(own)}


def test_mistakes_in_a_folder_of_ones_own(own, tmp_path):
    assert "did you mean 'shifting'?" in complaint("method=shifitng", config_dir=own)
    assert "for Shift: did you mean 'amount'?" in complaint(
        "+method.adaptation.amuont=1", "method=shifting", config_dir=own
    )
    assert "method.adaptation.amount=much" in complaint(
        "method=shifting", "method.adaptation.amount=much", config_dir=own
    )
    assert "no such folder" in complaint(config_dir=tmp_path / "nowhere")
    (own / "own_broken.py").write_text("import a_package_nobody_has\n")
    said = complaint("method.adaptation._target_=own_broken.Shift", config_dir=own)
    assert "own_broken.Shift can't be imported: No module named 'a_package_nobody_has'" in said


def test_targets_of_ones_own_must_be_allowed(own):
    node = config.compose(["method=shifting"], config_dir=own)["method"]["adaptation"]
    with pytest.raises(UserError, match=r"own_shift\.Shift is not allowed"):
        config.build(node, "clip", "task", place="method.adaptation")
    built = config.build(node, "clip", "task", place="method.adaptation", allowed=["own_shift"])
    assert built.given == ("clip", "task", 1.0)


def test_build(own):
    config.own_modules(own)
    node = {"_target_": "own_shift.make", "_partial_": True, "factor": 3}
    waiting = config.build(node, place="engine.schedule", allowed=["own_shift"])
    assert waiting("optimizer", 2) == ("optimizer", 6)
    with pytest.raises(UserError, match="amount must not be negative"):
        shift = {"_target_": "own_shift.Shift", "amount": -1}
        config.build(shift, 0, 0, place="method.adaptation", allowed=["own_shift"])
    with pytest.raises(UserError, match=r"own_shift\.count is not a schedule"):
        config.build({**node, "_target_": "own_shift.count"}, place="engine.schedule", allowed=["own_shift"])


def test_a_target_in_a_list_must_be_allowed_too(capsys):
    harmful = {"_target_": "builtins.print", "_args_": ["done"]}
    with pytest.raises(UserError, match=r"builtins\.print is not allowed"):
        config.build({"_target_": "clipadapt.data.sources.digits", "templates": ["a {}", [harmful]]}, place="data")
    assert "done" not in capsys.readouterr().out


def test_settings_become_objects():
    composed = config.compose(["engine.epochs=3"])
    settings = config.build(composed["engine"], place="engine")
    assert settings.epochs == 3 and settings.optimizer.keywords["lr"] == 0.002
    assert composed["method"]["adaptation"]["_target_"] == dict(nodes(composed))["method.adaptation"]["_target_"]


def test_hydra_of_a_caller_is_left_as_it_was(tmp_path):
    import hydra

    (tmp_path / "theirs.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        config.compose(["shots=4"])
        assert GlobalHydra.instance().is_initialized()
        assert hydra.compose("theirs").a == 1
    assert not GlobalHydra.instance().is_initialized()


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Start a recipe with words; its exit code, and the studies it was given."""
    monkeypatch.chdir(tmp_path)
    seen = []

    @launching.protocol("base_to_new")
    def program(study: studies.Study) -> None:
        """Try half of the classes."""
        seen.append(study)

    def start(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["base_to_new.py", *words])
        with pytest.raises(SystemExit) as stop:
            program()
        return stop.value.code

    return start, seen


def test_a_recipe_is_a_program(started, capsys):
    start, seen = started
    words = ["methods=[coop]", "data=[digits]", "seed=[2]", "targets=[drawn]", "corruptions=[contrast]", "severities=2"]
    assert start(*words, "engine.epochs=3") == 0
    (study,) = seen
    (spec,) = study.runs
    chosen = ["method=coop", "data=digits", "seed=2", "classes=base", "engine.epochs=3"]
    assert spec.config == config.compose(chosen)
    assert [target.name for target in study.targets] == ["drawn", "contrast/2"]
    assert study.targets[0].data == config.compose(["data=drawn"])["data"]
    assert study.directory.parent == Path("outputs/base_to_new")
    assert start("--help") == 0
    said = capsys.readouterr().out
    assert "Try half of the classes." in said and "conf/recipe/base_to_new.yaml" in said


@pytest.mark.parametrize(
    "words, told",
    [
        (["targets=[drwan]"], "there is no data 'drwan': did you mean 'drawn'"),
        (
            ["corruptions=[frost]", "severities=[1]"],
            "corruptions=frost does not fit: it must be one of gaussian_noise",
        ),
        (["corruptions=[contrast]", "severities=[6]"], "severities=6 does not fit: it must be"),
        (["severities=[3]"], "there are no corruptions for severities=[3]: add corruptions=[…]"),
        (["corruptions=[]", "severities=[3]"], "there are no corruptions for severities=[3]: add corruptions=[…]"),
        (["corruptions=[contrast]", "severities=[]"], "say which severities: severities=[…]"),
        (["targets=[drawn,digits,drawn]"], "targets=[drawn,digits,drawn] has a value twice"),
        (["corruptions=[contrast,contrast]"], "corruptions=[contrast,contrast] has a value twice"),
        (["corruptions=[contrast]", "severities=[3,3]"], "severities=[3,3] has a value twice"),
        (["methods=[cop]"], "there is no method 'cop': did you mean"),
        (["-m"], "--multirun has no meaning here"),
    ],
)
def test_a_recipe_checks_its_words(started, capsys, words, told):
    start, seen = started
    assert start(*words) == 2
    assert told in capsys.readouterr().err and not seen


@pytest.mark.parametrize("name", config.options("recipe"))
def test_corruptions_have_all_severities_unless_the_recipe_or_the_user_says_otherwise(name):
    usual = {"test_time": [3]}.get(name, [1, 2, 3, 4, 5])
    few = ["methods=[zero_shot]", "seed=[1]", "targets=[]"]
    for words, severities in (["corruptions=[contrast]"], usual), (["corruptions=[contrast]", "severities=2"], [2]):
        targets = studies.study(name, [*few, *words]).targets
        assert [target.name for target in targets] == [f"contrast/{severity}" for severity in severities]
    if name != "cross_dataset":
        assert studies.study(name, [*few, "corruptions=[]"]).targets == []


COMMANDS = [
    (path.stem, line.split("   ")[0].strip())
    for path in sorted(Path(__file__).parent.parent.joinpath("recipes").glob("*.py"))
    for line in re.findall(rf"^ +python recipes/{path.stem}\.py(.*)$", path.read_text(), re.MULTILINE)
    if path.stem in config.options("recipe")
]


@pytest.mark.slow
@pytest.mark.parametrize("name, words", COMMANDS)
def test_every_command_that_a_recipe_shows_can_be_run(name, words):
    assert studies.study(name, words.split()).runs


@pytest.mark.slow
@pytest.mark.parametrize("name", [name.removeprefix("recipe/") for name in FILES if name.startswith("recipe/")])
def test_every_protocol_has_a_recipe_with_runs_to_do(name):
    program = ast.parse(Path(__file__).parent.parent.joinpath("recipes", f"{name}.py").read_text())
    (function,) = [node for node in program.body if isinstance(node, ast.FunctionDef)]
    assert ast.unparse(function.decorator_list[0]) == f"protocol('{name}')"
    assert studies.study(name).runs


@pytest.mark.parametrize(
    "words", [["methods=[coop,zero_shot]", "seed=[1,2,3]"], ["methods=coop,'zero_shot'", "seed=range(1,4)"]]
)
def test_a_grid_is_every_combination(words):
    axes, overrides = config.read_lists([*words, "shots=[4,1]", "data=[drawn,digits]", "engine.epochs=3"])
    assert overrides == ["engine.epochs=3"]
    specs = studies.grid(axes, overrides)
    assert len(specs) == len({spec.directory for spec in specs}) == 24
    assert [(spec.data, spec.shots, spec.seed, spec.method) for spec in specs[:3]] == [
        ("drawn", 4, 1, "coop"),
        ("drawn", 4, 1, "zero_shot"),
        ("drawn", 4, 2, "coop"),
    ]
    for spec in (specs[1], specs[-1]):
        chosen = [f"{key}={getattr(spec, key)}" for key in ("data", "shots", "seed", "method")]
        assert spec.config == config.compose([*chosen, "engine.epochs=3"])
        assert spec.directory == config.run_directory(spec.config)


def test_a_grid_follows_references_to_its_axes():
    _, spec = studies.grid({"methods": ["coop"], "seed": [1, 7]}, ["backbone.seed=${seed}"])
    assert spec.config["backbone"]["seed"] == 7


def test_a_grid_has_one_runs_values_where_none_are_given():
    (spec,) = studies.grid({"methods": ["coop"]})
    assert (spec.data, spec.shots, spec.seed) == ("digits", 16, 1)
    assert spec.config == config.compose()


@pytest.mark.slow
def test_all_methods_are_those_of_ones_own_too(own):
    specs = studies.grid({"methods": ["all"]}, config_dir=own)
    assert [spec.method for spec in specs] == [*config.options("method", own)] and "shifting" in {
        spec.method for spec in specs
    }
    assert specs[0].config["allowed_targets"] == ["own_shift"]


def test_a_grids_directory_is_made_of_its_settings():
    axes = {"methods": ["coop", "zero_shot"], "shots": [1, 4]}
    found = studies.comparison(axes).directory.as_posix()
    assert found.startswith("outputs/compare/digits-tiny-coop+zero_shot-shots1+4-seeds1-")
    assert studies.comparison(axes, ["engine.cpu=true"]).directory.as_posix() == found
    assert studies.comparison(axes, ["engine.epochs=3"]).directory.as_posix() != found
    many = studies.comparison({"methods": ["coop"], "seed": range(30)})
    assert "-30seeds-" in many.directory.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["say which methods: methods=[…], or methods=all"]),
        (["methods=[cop,zero_shot]", "data=digts"], ["2 things", "did you mean 'coop'?", "did you mean 'digits'?"]),
        (["methods={coop: 1}"], ["there is no method"]),
        (["methods=coop", "shots=[1,0]", "seed=[x]"], ["shots=0 does not fit", "seed=x does not fit"]),
        (["methods=coop", "shots=[]"], ["say which shots"]),
        (["methods=[coop,coop]"], ["has a value twice"]),
        (["methods=[coop"], ["methods=[coop can't be read"]),
        (["methods=coop", "method=coop", "+seed=1"], ["a grid has methods, written methods=[…]", "+seed=1"]),
        (["methods=coop", "engine.epoch=5"], ["did you mean 'engine.epochs'?"]),
        (["methods=coop", "data=[digits,drawn]", "data.name=glyphs"], ["with data=digits: there is no key data.name"]),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[0] else None,
)
def test_mistakes_in_a_grid_are_told_together(words, said):
    with pytest.raises(UserError) as caught:
        studies.grid(*config.read_lists(words))
    for part in said:
        assert part in str(caught.value)


def test_the_quick_schedule_is_an_option_of_its_group_that_sets_the_engine():
    composed = config.compose(["+schedule=quick", "method=clip_adapter"])
    usual = config.compose(["method=clip_adapter"])
    assert composed["engine"] == usual["engine"] | {"max_steps": 150}
    assert composed.keys() == usual.keys()
    assert config.compose(["+schedule=quick", "engine.max_steps=9"])["engine"]["max_steps"] == 9
    assert config.run_directory(composed) != config.run_directory(usual)
    assert complaint("schedule=quick") == "schedule=quick: write +schedule=quick"
    assert "must be a table with a _target_" in complaint("schedule@engine.schedule=quick")
    assert "schedule@engine.schedule" in complaint("schedule=constant")


def test_paths_of_a_source_hold_in_other_folders(tmp_path, monkeypatch):
    (tmp_path / "saved").mkdir()
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for words, found in (
        (["data=csv", "data.root=a.csv", "data.images=pics"], {"root": f"{here}/a.csv", "images": f"{here}/pics"}),
        (["data=webdataset", "data.root=a", "data.test='b/{0..2}.tar'"], {"test": f"{here}/b/{{0..2}}.tar"}),
        (["data=dtd", "data.home=sets"], {"home": f"{here}/sets", "images": "dtd/images"}),
        (["data=huggingface", "data.name=saved"], {"name": f"{here}/saved"}),
        (["data=huggingface", "data.name=ethz/food101"], {"name": "ethz/food101"}),
    ):
        assert found.items() <= config.compose(words)["data"].items()


@pytest.mark.parametrize(
    "protocol, words, said",
    [
        ("base_to_new", ["classes=all"], "classes=all: what base_to_new runs has classes=base"),
        ("cross_dataset", ["data=[digits]", "targets=[digits]"], "digits is learned and a target"),
        ("cross_dataset", ["targets=[]"], r"targets=\[\] leaves no other data to test on"),
        ("corruptions", ["corruptions=[frost]"], "corruptions=frost does not fit"),
        ("corruptions", ["severities=[6]"], "severities=6 does not fit"),
        ("few_shot", ["hydra/launcher=slurm"], "hydra/launcher=slurm is for sweeps"),
    ],
)
def test_a_protocol_is_kept(protocol, words, said):
    with pytest.raises(UserError, match=said):
        studies.study(protocol, words)


@pytest.mark.slow
def test_what_a_protocol_is_may_be_said():
    assert studies.study("base_to_new", ["classes=base"]).runs
    names = [target.name for target in studies.study("cross_dataset", ["data=[digits]"]).targets]
    assert names == ["glyphs", "pairs"]


def test_a_launcher_needs_a_sweep(capsys):
    assert main(["hydra/launcher=slurm"]) == 2
    assert "hydra/launcher=slurm is for the runs of a sweep: add -m" in capsys.readouterr().err


def test_a_sweeps_settings_are_not_shown(capsys):
    assert main(["-m", "shots=1,2", "--cfg", "job"]) == 2
    assert "--cfg shows the settings of one run: leave out -m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("+hydra.sweep.dir=x", "An item is already at 'hydra.sweep.dir'"),
        ("hydra.sweeper.trials=3", "Could not override 'hydra.sweeper.trials'"),
    ],
)
def test_hydras_own_keys_are_told_apart_from_ours(text, told):
    with pytest.raises(UserError) as error:
        config.compose([text])
    assert told in str(error.value) and "known are" not in str(error.value)
