"""Artifacts on the Hugging Face hub: its own client against a stand-in on this machine."""

import shutil

import pytest
import torch

import clipadapt
from clipadapt.cli import main
from clipadapt.errors import UserError
from tests.small import images
from tests.stand_in_hub import StandInHub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a hub without repositories; the client has its token, and a cache of the test's own."""
    with StandInHub() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "writes")
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield server


@pytest.fixture(scope="module")
def predictor():
    task = clipadapt.load_task("digits", shots=1)
    result = clipadapt.finetune(clipadapt.load_backbone(), task, "tip_adapter_f", cpu=True, workers=0, cache=None)
    return result.predictor


def answers(found):
    return found.predict_proba(list(images(2).clamp(-1, 1)))


def test_a_predictor_goes_there_and_back(hub, predictor, tmp_path):
    url = predictor.push_to_hub("me/digits", private=True)
    assert url == f"{hub.url}/me/digits" and hub.repositories["me/digits"].private
    files = hub.repositories["me/digits"].commits[hub.repositories["me/digits"].branches["main"]]
    assert {*files} == {".gitattributes", "README.md", "adaptation.safetensors", "config.json"}
    for found in (clipadapt.load("me/digits", device="cpu"), clipadapt.Predictor.from_pretrained("me/digits")):
        assert torch.equal(answers(found), answers(predictor))


def test_a_model_card_that_is_there_stays(hub, predictor):
    hub.put("me/digits", {"README.md": b"mine"})
    with pytest.warns(UserWarning, match=r"me/digits had a README\.md already, which stays"):
        predictor.push_to_hub("me/digits")
    repository = hub.repositories["me/digits"]
    assert repository.commits[repository.branches["main"]]["README.md"] == b"mine"


def test_revisions(hub, predictor):
    predictor.for_classes(["zero", "one"]).push_to_hub("me/digits")
    predictor.push_to_hub("me/digits", revision="ten")
    assert clipadapt.load("me/digits", device="cpu").class_names == ["zero", "one"]
    assert len(clipadapt.load("me/digits", device="cpu", revision="ten").class_names) == 10
    first = next(iter(hub.repositories["me/digits"].commits))
    for revision, said in (("none", "has no revision none"), (first, r"has no config\.json, which clipadapt push")):
        with pytest.raises(UserError, match=f"me/digits on the Hugging Face hub {said}"):
            clipadapt.load("me/digits", revision=revision)


def test_without_network_the_copy_fetched_before_is_used(hub, predictor, monkeypatch):
    predictor.push_to_hub("me/digits")
    clipadapt.load("me/digits", device="cpu")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.warns(UserWarning, match="me/digits is the copy fetched before"):
        found = clipadapt.load("me/digits", device="cpu")
    assert torch.equal(answers(found), answers(predictor))
    with pytest.raises(UserError, match="there is no folder me/other here, and the Hugging Face hub can't be asked"):
        clipadapt.load("me/other")
    with pytest.raises(UserError, match="the Hugging Face hub can't be reached: HF_HUB_OFFLINE is set"):
        predictor.push_to_hub("me/digits")


def test_who_may_not(hub, predictor, monkeypatch):
    predictor.push_to_hub("me/digits", private=True)
    monkeypatch.setenv("HF_TOKEN", "another")
    with pytest.raises(UserError, match="no repository of that name on the Hugging Face hub that this account may see"):
        clipadapt.load("me/digits")
    with pytest.raises(UserError, match="doesn't let this account do that with me/new: `hf auth login`"):
        predictor.push_to_hub("me/new")
    assert answers(clipadapt.load("me/digits", device="cpu", token="writes")).shape == (2, 10)


@pytest.mark.parametrize("request_of", ["/preupload/", "/commit/"])
def test_an_interrupted_push_leaves_nothing(hub, predictor, request_of, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between attempts
    predictor.push_to_hub("me/digits")
    before = dict(hub.repositories["me/digits"].branches)
    hub.breaks = request_of
    with pytest.raises(UserError, match="the exchange with the Hugging Face hub about me/digits failed: "):
        predictor.push_to_hub("me/digits")
    assert hub.repositories["me/digits"].branches == before
    hub.breaks = ""
    predictor.push_to_hub("me/digits")
    assert hub.repositories["me/digits"].branches != before


def test_an_interrupted_download_goes_on(hub, predictor):
    predictor.push_to_hub("me/digits")
    hub.breaks = "adaptation.safetensors"
    with pytest.raises(UserError, match="the exchange with the Hugging Face hub about me/digits failed: "):
        clipadapt.load("me/digits")
    hub.breaks = ""
    assert torch.equal(answers(clipadapt.load("me/digits", device="cpu")), answers(predictor))


def test_names(hub, predictor, tmp_path):
    with pytest.raises(UserError, match="digits is no name of a repository: it must be user/name"):
        predictor.push_to_hub("digits")
    with pytest.raises(UserError, match="revision=main belongs to a repository of the hub"):
        clipadapt.load(tmp_path, revision="main")
    assert not hub.asked


def test_on_the_command_line(hub, predictor, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predictor.save_pretrained("mine")
    assert main(["push", "run=mine", "repo=me/digits", "private=true", "revision=first", "message=hello"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/me/digits"
    shutil.copy(predictor.save_pretrained("other") / "README.md", "image.png")
    for words, said in (
        (["predict", "run=me/digits@first", "images=image.png"], "image.png"),
        (["predict", "run=me/nothing", "images=image.png"], "there is no folder me/nothing here"),
        (
            ["push", "run=mine", "repo=nowhere"],
            "say which repository, and repo=nowhere is none: clipadapt push run=mine repo=user/name",
        ),
        (["pack", "run=mine"], "say where to: clipadapt pack run=mine out=my_model"),
        (["pack", "run=mine", "out=other"], "other is there already"),
    ):
        assert main(words) == 2
        assert said in " ".join(capsys.readouterr().err.split())
