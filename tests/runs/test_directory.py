import os
from pathlib import Path

import pytest
import torch

from clipadapt.checksums import dump_checked_json, read_checked_json
from clipadapt.engine.fit import TrainState
from clipadapt.errors import UserError, WriteError
from clipadapt.files import write_atomically
from clipadapt.runs import directory as directory_module
from clipadapt.runs.directory import NEEDED, RunDirectory

CONFIG = {"seed": 1, "note": "a"}
TENSORS = {"context": torch.arange(6.0).view(2, 3)}
CPU = torch.device("cpu")
RECORD = {
    **{"task": "digits", "class_names": ["one", "two"], "templates": ["a {}"], "shots": 1, "seed": 1},
    **{"fingerprint": "mine", "support_shape": [1, 2, 128], "backbone": {"name": "tiny", "fingerprint": "its"}},
}
FIGURES = {"accuracy": 0.5, "zero_shot_accuracy": 0.25, "images": 4}
RESULT = {
    **FIGURES,
    **{"tests": {"test": FIGURES}, "parameters": 6, "share": 0.1, "seconds": 1.5, "peak_memory_mb": 9.0},
    **{"figures": {"accuracy": {"title": "accuracy", "percent": True, "higher_is_better": True}}},
    **{"processes": 1, "schedule_note": None},
}
HISTORY = [{"epoch": 1, "loss": 0.25, "accuracy": 0.5, "lr": 0.1}]


def identity(config):
    return {"seed": config["seed"]}


def opened(path, config=CONFIG):
    directory = RunDirectory(path)
    directory.open(config, identity)
    return directory


def finished(path, accuracy=0.5):
    directory = opened(path)
    directory.finish(TENSORS, RECORD, HISTORY, RESULT | {"accuracy": accuracy})
    return directory


def test_what_is_written_is_read(tmp_path):
    directory = finished(tmp_path / "deep" / "run")
    assert directory.finished
    assert directory.config() == CONFIG
    assert directory.record() == RECORD
    assert directory.history() == HISTORY
    assert directory.result() == RESULT
    assert torch.equal(directory.tensors()["context"], TENSORS["context"])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(WriteError, match="disk full"):
        write_atomically(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old" and len([*tmp_path.iterdir()]) == 1


def test_another_configuration_is_refused(tmp_path):
    opened(tmp_path / "run")
    opened(tmp_path / "run", {"seed": 1, "note": "b"})
    with pytest.raises(UserError, match=r"another seed \(1, now 2\)"):
        opened(tmp_path / "run", {"seed": 2, "note": "a"})
    assert opened(tmp_path / "run").config() == CONFIG


def test_a_folder_or_file_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds no run"):
        opened(tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        opened(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_killed_before_the_configuration_was_written(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.1.part").write_text("see")
    assert opened(tmp_path / "run").config() == CONFIG


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("result.json", "has no result.json; give the command of the run again to finish it"),
        ("manifest.json", "has no manifest.json.* older clipadapt; get a whole copy of the run, or delete"),
        *(
            (name, f"{name} can't be read .it is missing.: get a whole copy")
            for name in NEEDED
            if name != "result.json"
        ),
    ],
)
def test_a_run_says_what_is_missing(tmp_path, missing, said):
    directory = finished(tmp_path / "run")
    (directory.path / missing).unlink()
    with pytest.raises(UserError, match=said):
        directory.check_files()


def test_no_directory(tmp_path):
    with pytest.raises(UserError, match="there is no run directory"):
        RunDirectory(tmp_path / "nowhere").result()


def test_checkpoint_is_read_as_it_was_written_and_removed_at_the_end(tmp_path):
    directory = opened(tmp_path / "run")
    assert directory.load_checkpoint(CPU, "mine") == TrainState(fingerprint="mine")
    state = {"adaptation": TENSORS, "optimizer": {"lr": 0.1}}
    progress = TrainState(2, [{"epoch": 1.0}, {"epoch": 2.0}], 1.5, state, "mine")
    directory.save_checkpoint(progress)
    found = directory.load_checkpoint(CPU, "mine")
    assert (found.epoch, found.history, found.seconds) == (2, progress.history, 1.5)
    assert torch.equal(found.state["adaptation"]["context"], TENSORS["context"])
    assert [path.name for path in directory.path.glob("check*")] == ["checkpoint-2.safetensors"]
    finished(tmp_path / "run")
    assert not list(directory.path.glob("check*"))


def test_a_run_computed_again_replaces_the_old_one_at_the_end(tmp_path):
    directory = finished(tmp_path / "run")
    fresh = directory.beside()
    finished(fresh.path, accuracy=0.75)
    assert directory.result() == RESULT
    directory.replace_by(fresh)
    assert directory.result() == RESULT | {"accuracy": 0.75}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_new_ones_name_is_on_the_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    old, seen = finished(tmp_path / "run"), []
    new = finished(old.beside().path, accuracy=0.75)

    def flush(folder):
        runs = sorted(RunDirectory(path).result()["accuracy"] for path in folder.iterdir())
        seen.append((folder, old.result()["accuracy"], runs))

    monkeypatch.setattr(directory_module, "flush_folder", flush)
    old.replace_by(new)
    assert seen == [(tmp_path, 0.75, [0.5, 0.75])]


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    directory = opened(tmp_path / "run")
    directory.save_checkpoint(TrainState(fingerprint="mine"))
    with pytest.raises(UserError, match="have changed since it was stopped: rerun=true"):
        directory.load_checkpoint(CPU, "others")


def test_what_others_put_into_a_run_outlives_its_rerun(tmp_path):
    directory = finished(tmp_path / "run")
    (directory.path / "notes.txt").write_text("mine")
    (directory.path / "transfer").mkdir()
    finished(directory.beside().path)
    directory.replace_by(directory.beside())
    assert (directory.path / "notes.txt").read_text() == "mine"
    assert not (directory.path / "transfer").exists()


def test_a_rerun_killed_while_it_takes_the_old_ones_place_loses_nothing(tmp_path, monkeypatch):
    directory = finished(tmp_path / "run")
    fresh = directory.beside()
    finished(fresh.path, accuracy=0.75)
    rename = Path.rename

    def killed(path, target):
        if path == fresh.path:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        directory.replace_by(fresh)
    monkeypatch.undo()
    directory.restore()
    assert directory.result() == RESULT


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (Path.mkdir, "result.json", "a folder, and the run has a file"),
        (Path.touch, "pictures", "a file, and the run has a"),
    ],
)
def test_what_stands_in_the_place_of_a_coming_file_is_told_before_the_fit(tmp_path, make, name, said):
    directory = opened(tmp_path / "run")
    make(directory.path / name)
    with pytest.raises(UserError, match=f"{name} is {said}.* of that name: move it away"):
        opened(tmp_path / "run")


@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        {"../thesis.tex": "0" * 64},
        {"/thesis.tex": "0" * 64},
        {"config.yaml": 5},
        {"config.yaml": "0" * 64},
        {"config.yaml": "X" * 64},
    ],
)
def test_a_manifest_of_something_else_is_refused(tmp_path, files):
    directory = finished(tmp_path / "run")
    path = directory.path / "manifest.json"
    content = read_checked_json(path)
    listed = {**content["files"], **files} if files else files
    path.write_text(dump_checked_json({**content, "files": listed}))
    with pytest.raises(UserError, match=r"(manifest\.json|config\.yaml) is damaged .* delete"):
        directory.check_files()
    path.write_text(dump_checked_json({**content, "format": 2}))
    with pytest.raises(UserError, match="not of format 1"):
        directory.check_files()


def test_only_a_writer_removes_what_was_left(tmp_path):
    directory = finished(tmp_path / "run")
    (directory.path / ".result.json.4711.part").touch()
    (directory.path / "notes.part").touch()
    directory.save_checkpoint(TrainState(3))
    directory.check_files()
    assert len([*directory.path.glob("*.part")]) == 2 and directory.checkpoints.epochs() == [3]
    directory.remove_leftovers()
    assert [path.name for path in directory.path.glob("*.part")] == ["notes.part"]
    assert not directory.checkpoints.epochs()
    unfinished = opened(tmp_path / "unfinished")
    unfinished.save_checkpoint(TrainState(3))
    unfinished.remove_leftovers()
    assert unfinished.checkpoints.epochs() == [3]


def test_a_directory_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    directory = finished(tmp_path / "run")
    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(UserError, match="run can't be read: Permission denied"):
        directory.check_files()


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be made: Not a directory"):
        RunDirectory(tmp_path / "file" / "run").open({}, dict)


def test_a_run_of_other_data_is_kept_as_a_version(tmp_path):
    directory = finished(tmp_path / "run", accuracy=0.1)
    for number in (1, 2):
        fresh = opened(directory.beside().path)
        fresh.finish(TENSORS, RECORD | {"fingerprint": f"other{number}"}, HISTORY, RESULT | {"accuracy": number / 4})
        directory.replace_by(fresh)
    found = {path.name: RunDirectory(path).result()["accuracy"] for path in tmp_path.iterdir()}
    assert found == {"run": 0.5, "run.v1": 0.1, "run.v2": 0.25}


def test_a_version_survives_a_kill_before_it_has_its_name(tmp_path, monkeypatch):
    directory = finished(tmp_path / "run", accuracy=0.1)
    fresh = opened(directory.beside().path)
    fresh.finish(TENSORS, RECORD | {"fingerprint": "other"}, HISTORY, RESULT)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "_retire_old", lambda self: None)
        directory.replace_by(fresh)
    directory.restore()
    assert RunDirectory(tmp_path / "run.v1").result()["accuracy"] == 0.1 and directory.result() == RESULT


def test_a_run_of_before_bands_could_be_chosen_is_the_same_run(tmp_path):
    task = {"resize": "crop"}
    RunDirectory(tmp_path / "run").open({**CONFIG, "task": task}, dict)
    again = RunDirectory(tmp_path / "run")
    again.open({**CONFIG, "task": {**task, "bands": None, "value_range": None}}, dict)
    with pytest.raises(UserError, match="holds a run with another task"):
        again.open({**CONFIG, "task": {**task, "bands": [1], "value_range": None}}, dict)
