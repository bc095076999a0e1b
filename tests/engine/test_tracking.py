"""Trackers: what they are sent, and that a run is the same with and without one."""

from importlib.metadata import version

import pytest
from accelerate.tracking import GeneralTracker

from clipadapt.cli import main
from clipadapt.config import compose, identity, run_directory
from clipadapt.engine import tracking
from clipadapt.errors import SettingsError, UserError
from clipadapt.runs import train
from clipadapt.runs.result import read_result

WORDS = ["shots=1", "engine.epochs=3", "engine.workers=0", "engine.cpu=true", "engine.cache=null"]
WORDS += ["engine.checkpoint_seconds=0"]


class Notes(GeneralTracker):
    """A tracker that notes what it is sent."""

    name, requires_logging_directory = "notes", False

    def __init__(self, fails=False):
        super().__init__(_blank=True)
        self.fails, self.settings, self.sent, self.ended = fails, {}, [], False

    def start(self):
        if self.fails:
            raise RuntimeError("you are not logged in\nmore")

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step=None):
        self.sent.append((step, values))

    def finish(self):
        self.ended = True


def tracked_run(tmp_path, *words):
    assert main([*WORDS, *words, f"output={tmp_path}"]) == 0
    (found,) = tmp_path.rglob("result.json")
    return found.parent


@pytest.fixture
def notes(monkeypatch):
    made = Notes()
    monkeypatch.setattr(tracking, "make", lambda *given: made)
    monkeypatch.setattr(tracking, "version", lambda name: "1.0")
    return made


def test_a_tracker_gets_settings_losses_and_figures(notes, tmp_path):
    run = tracked_run(tmp_path, "engine.tracker=mlflow")
    result = read_result(run)
    assert notes.ended and notes.settings["engine.epochs"] == 3 and notes.settings["engine.max_steps"] == "null"
    assert notes.settings["data.templates"] == "null"
    assert [step for step, _ in notes.sent] == [1, 2, 3, 3]
    for row, (_, values) in zip(result.history, notes.sent, strict=False):
        assert values == {f"training/{name}": row[name] for name in ("loss", "accuracy", "lr")}
    last = notes.sent[-1][1]
    assert last["test/accuracy"] == result.metrics["accuracy"] and last["parameters"] == result.metrics["parameters"]
    assert last["test/zero_shot_accuracy"] == result.metrics["zero_shot_accuracy"]


def test_a_tracker_changes_no_run():
    with_one, without = (compose([*WORDS, f"engine.tracker={choice}"]) for choice in ("wandb", "null"))
    assert identity(with_one) == identity(without) and run_directory(with_one) == run_directory(without)


def test_a_tracker_ends_with_a_run_that_fails(notes, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_evaluate", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main([*WORDS, "engine.tracker=wandb", f"output={tmp_path}"])
    assert notes.ended and len(notes.sent) == 3


@pytest.mark.parametrize("choice", tracking.CLASSES)
def test_a_missing_package_names_its_extra(choice, monkeypatch, tmp_path):
    (tmp_path / choice).mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of its name is no package
    monkeypatch.setattr(tracking, "version", lambda name: version(f"no-{name}"))
    with pytest.raises(SettingsError, match=rf"{choice} needs {choice}: pip install 'clipadapt\[{choice}\]'"):
        tracking.check_tracker(choice)
    tracking.check_tracker(None)


def test_a_tracker_that_cannot_start_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "make", lambda *given: Notes(fails=True))
    with (
        pytest.raises(UserError, match=r"engine\.tracker=wandb can't be started: you are not logged in$"),
        tracking.tracked("wandb", "name", tmp_path, {}),
    ):
        pass


def test_ids_are_kept_for_runs_that_go_on(tmp_path):
    assert tracking.read_id(tmp_path, "wandb") is None
    tracking.write_id(tmp_path, "wandb", "an id")
    assert tracking.read_id(tmp_path, "wandb") == "an id" and tracking.read_id(tmp_path, "mlflow") is None


class Stop(Exception):
    """Stands for a kill."""


def stopped_and_resumed(tmp_path, monkeypatch, *words):
    """A run that was stopped after its second epoch, and then went on to its end."""
    with monkeypatch.context() as patch:
        patch.setattr(train.RunDirectory, "save_checkpoint", stop_after(2, train.RunDirectory.save_checkpoint))
        with pytest.raises(Stop):
            main([*WORDS, *words, f"output={tmp_path / 'out'}"])
    return tracked_run(tmp_path / "out", *words)


def stop_after(epoch, save):
    def saved(directory, progress):
        save(directory, progress)
        if progress.epoch == epoch:
            raise Stop

    return saved


def test_tensorboards_files_are_read_back(tmp_path, monkeypatch):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs clipadapt[tensorboard]"
    )
    run = stopped_and_resumed(tmp_path, monkeypatch, "engine.tracker=tensorboard")
    events = reading.EventAccumulator(str(run / "tensorboard")).Reload()
    history = read_result(run).history
    losses = events.Scalars("training/loss")
    assert [one.step for one in losses] == [1, 2, 3]
    assert [one.value for one in losses] == pytest.approx([row["loss"] for row in history])
    assert events.Scalars("test/accuracy")[0].value == pytest.approx(read_result(run).metrics["accuracy"])
    assert main(["evaluate", f"run={run}"]) == 0  # whose manifest knows nothing of these files


def test_mlflows_runs_are_read_back(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs clipadapt[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    run = stopped_and_resumed(tmp_path, monkeypatch, "engine.tracker=mlflow")
    client = mlflow.tracking.MlflowClient()
    (experiment,) = mlflow.search_experiments(filter_string="name = 'clipadapt'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.params["method.name"] == "coop" and found.info.status == "FINISHED"
    losses = client.get_metric_history(found.info.run_id, "training/loss")
    assert {one.step: one.value for one in losses} == pytest.approx(
        {row["epoch"]: row["loss"] for row in read_result(run).history}
    )


def test_a_tracker_beside_a_finished_run_is_checked_and_told(tmp_path, monkeypatch, capsys):
    tracked_run(tmp_path)
    capsys.readouterr()
    monkeypatch.setattr(tracking, "version", lambda name: "1.0")
    tracked_run(tmp_path, "engine.tracker=mlflow")
    assert "note: engine.tracker=mlflow gets nothing of a run that is finished: rerun=true" in capsys.readouterr().out
    monkeypatch.setattr(tracking, "version", lambda name: version(f"no-{name}"))
    assert main([*WORDS, "engine.tracker=mlflow", f"output={tmp_path}"]) == 2
    assert "engine.tracker=mlflow needs mlflow: pip install 'clipadapt[mlflow]'" in capsys.readouterr().err
