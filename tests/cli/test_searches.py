"""Searches by Optuna: which words they take, by which figure, and what they find."""

import shutil

import pytest
from PIL import Image

from clipadapt.cli import main
from clipadapt.cli.searches import NoObjective, list_bounds, objective, with_params
from clipadapt.runs.reading import RunReader

WORDS = ["-m", "hydra/sweeper=optuna"]
FIGURES = {"loss": {"higher_is_better": False}, "accuracy": {"higher_is_better": True}}


def test_the_objective_is_the_leading_figure_on_the_validation_images():
    metrics = {"accuracy": 0.1, "tests": {"test": {"accuracy": 0.1}}, "validation": {"accuracy": 0.75, "loss": 0.5}}
    assert objective({**metrics, "figures": {"accuracy": FIGURES["accuracy"], "loss": FIGURES["loss"]}}) == 0.75
    assert objective({**metrics, "figures": FIGURES}) == -0.5  # of which less is better
    assert objective({"tests": {}, "validation": {"accuracy": 0.75}}) == 0.75


def test_without_validation_images_there_is_no_objective():
    with pytest.raises(NoObjective, match="this run had none: give it a folder val/, or fewer shots"):
        objective({"accuracy": 0.9, "tests": {"test": {}}, "figures": {"accuracy": FIGURES["accuracy"]}})


@pytest.mark.parametrize(
    "text, values",
    [
        ("engine.optimizer.lr=interval(0.001,0.1)", ["engine.optimizer.lr=0.001", "engine.optimizer.lr=0.1"]),
        ("engine.optimizer.lr=tag(log,interval(0.001,0.1))", ["engine.optimizer.lr=0.001", "engine.optimizer.lr=0.1"]),
        ("engine.epochs=range(5,50,5)", ["engine.epochs=5", "engine.epochs=45"]),
        ("method=choice(coop,lp_plus_plus,taskres)", ["method=coop", "method=lp_plus_plus", "method=taskres"]),
        ("shots=4", ["shots=4"]),
    ],
)
def test_the_bounds_of_a_search_are_checked(text, values):
    assert list_bounds([text], None) == [values]


def test_a_table_of_params_is_written_as_settings():
    table = 'hydra.sweeper.params={engine.optimizer.lr:"interval(0.001,0.1)",shots:"choice(1,2)"}'
    assert with_params(["seed=2", table], None) == [
        "seed=2",
        "engine.optimizer.lr=interval(0.001,0.1)",
        "shots=choice(1,2)",
    ]


@pytest.mark.parametrize(
    "words, message",
    [
        (["hydra/sweeper=optuna", "shots=choice(1,2)"], "is a search over many runs: add -m"),
        ([*WORDS, "hydra.sweeper.direction=minimize"], "leave hydra.sweeper.direction out"),
        ([*WORDS, "hydra.sweeper.params=5"], "hydra.sweeper.params=5: write a table, as in"),
        (["-m", "engine.optimizer.lr=interval(0.1,1)"], "is an interval to search in: add -m hydra/sweeper=optuna"),
    ],
)
def test_words_that_make_no_search(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_missing_sweeper_names_its_extra(capsys):
    try:
        import hydra_plugins.hydra_optuna_sweeper  # noqa: F401
    except ImportError:
        assert main([*WORDS, "shots=choice(1,2)"]) == 2
        assert "which comes with pip install 'clipadapt[optuna]'" in capsys.readouterr().err


RUN = ["shots=1", "engine.epochs=2", "engine.workers=0", "engine.cpu=true"]
RATE = "engine.optimizer.lr=interval(0.001,0.1)"


@pytest.mark.slow
def test_three_trials_find_the_best_of_them(tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs clipadapt[optuna]")
    words = [
        *RUN,
        RATE,
        "hydra.sweeper.n_trials=3",
        f"output={tmp_path / 'runs'}",
        f"engine.cache={tmp_path / 'cache'}",
    ]
    assert main([*WORDS, *words]) == 0
    runs = [path.parent for path in tmp_path.rglob("result.json")]
    best = max(RunReader(run).result()["validation"]["accuracy"] for run in runs)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Best by "))
    assert len(runs) == 3 and line.startswith(
        f"Best by accuracy on the validation images, {best:.3f}: engine.optimizer.lr="
    )
    (found,) = (run for run in runs if line.endswith(str(run)))
    assert RunReader(found).result()["validation"]["accuracy"] == best
    shutil.rmtree(tmp_path / "runs")
    assert main([*WORDS, *words, "engine.epochs=x"]) == 2
    assert "engine.epochs=x does not fit" in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_without_validation_images_says_so(tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs clipadapt[optuna]")
    for place in ("train/red", "train/blue", "test/red", "test/blue"):
        (tmp_path / "images" / place).mkdir(parents=True)
        Image.new("RGB", (40, 40), place.partition("/")[2]).save(tmp_path / "images" / place / "1.png")
    words = ["data=folder", f"data.root={tmp_path / 'images'}", *RUN, RATE]
    assert main([*WORDS, *words, f"output={tmp_path}", "engine.cache=null"]) == 2
    assert capsys.readouterr().err.count("this run had none") == 1
    assert len([*tmp_path.rglob("result.json")]) == 1  # the others would have none, either
