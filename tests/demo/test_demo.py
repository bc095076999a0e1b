"""`clipadapt demo`: what the page says of images, without a browser."""

import html
import re
import sys

import pytest
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.demo import Demo, load_runs
from clipadapt.demo.answers import read_names
from clipadapt.errors import UserError
from tests.shown import shown_run


@pytest.fixture(scope="module")
def run():
    return shown_run()


@pytest.fixture
def files(tmp_path):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    (tmp_path / "<b>.png").write_bytes((tmp_path / "red.png").read_bytes()[:60])
    return [str(tmp_path / name) for name in ("red.png", "<b>.png")]


def bars(page):
    """The classes of a page with their shares, as texts."""
    return re.findall(r"</i><span>(.*?)</span><span>(.*?) %</span>", page)


def test_answers_are_the_predictors_and_a_broken_file_has_the_reason(run, files):
    page = Demo(load_runs([run, run])).answer(files, None, looks=False, near=False)
    (row,) = clipadapt.load(run, device="cpu").predict_proba(files[0])
    best = row.sort(descending=True)
    names = clipadapt.load(run, device="cpu").class_names
    expected = [(names[k], f"{100 * row[k]:.1f}") for k in best.indices[:5].tolist()]
    assert bars(page) == 2 * expected  # two runs, side by side
    assert "the image '<b>.png' can't be read: " in html.unescape(page) and "<b>" not in page
    assert "http" not in page


def test_where_it_looks_and_the_nearest_images(run, files):
    page = Demo(load_runs([run])).answer(files[:1], "", looks=True, near=True)
    assert 'class="ca-looks" src="data:image/jpeg;base64,' in page
    near = re.findall(r"<figcaption>(\w+) (-?\d\.\d\d)</figcaption>", page)
    assert len(near) == 3 and [float(one) for _, one in near] == sorted((float(one) for _, one in near), reverse=True)


def test_an_image_that_was_learned_from_is_nearest_to_itself(run, tmp_path):
    (shown,) = load_runs([run])
    shown.task.support.images[4].save(tmp_path / "learned.png")
    first = shown.nearest(str(tmp_path / "learned.png"))[0]
    assert first.cosine == pytest.approx(1, abs=1e-4)
    assert first.label == shown.task.class_names[shown.task.support.labels[4]]


def test_an_artifact_has_no_images(run, files, tmp_path):
    assert main(["pack", f"run={run}", f"out={tmp_path / 'packed'}"]) == 0
    both = [one.title for one in load_runs([run, tmp_path / "packed"])]
    assert both == [f"coop on drawn-shapes ({run.name})", "coop on drawn-shapes (packed)"]
    page = Demo(load_runs([tmp_path / "packed"])).answer(files[:1], "", looks=False, near=True)
    assert len(bars(page)) == 5 and "The images that were learned from aren" in page


def test_other_class_names(run, files):
    demo = Demo(load_runs([run]))
    page = demo.answer(files[:1], " cat \n\ndog\n", looks=False, near=False)
    assert {name for name, _ in bars(page)} == {"cat", "dog"}
    assert "One class name alone says nothing" in demo.answer(files, "cat", looks=False, near=False)
    demo.runs[0].predictor.model.adaptation.declare(fixed_classes=tuple(demo.runs[0].predictor.class_names))
    demo.runs[0].for_classes.cache_clear()
    refused = html.unescape(demo.answer(files[:1], "cat\ndog", looks=False, near=False))
    assert not bars(refused) and "ca-note" in refused.split("</style>")[1]


@pytest.mark.parametrize("text, message", [("a\na", "there twice"), ("\n".join(map(str, range(1001))), "1,001 class")])
def test_lists_of_names_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        read_names(text)


def test_no_files_and_too_many(run, files):
    demo = Demo(load_runs([run]))
    assert not bars(demo.answer(None, None, looks=False, near=False))
    page = demo.answer(files[1:] * 33, None, looks=False, near=False)
    assert "The first 32 of 33 images are shown." in page


def test_a_fault_of_an_answer_is_told_in_its_place(run, files, monkeypatch):
    demo = Demo(load_runs([run]))
    monkeypatch.setattr(demo.runs[0], "attention", lambda picture: 1 / 0)
    page = demo.answer(files[:1], None, looks=True, near=False)
    assert len(bars(page)) == 5 and "this failed: the terminal of the demo says why" in page


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "say which run: clipadapt demo run="),
        (["run={}", "port=x"], "port=x does not fit: it must be a whole number from 0 to 65,535"),
        (["run={}", "run={}/nowhere"], "there is no run directory"),
        (["run={}", "hots=1"], "there is no key hots: did you mean 'host'?"),
        (["run={}"], "clipadapt demo needs the library gradio: pip install 'clipadapt[demo]'"),
    ],
)
def test_wrong_words(run, capsys, monkeypatch, words, message):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", *(word.format(run) for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_space(run, tmp_path):
    pytest.importorskip("gradio")
    folder = tmp_path / "space"
    assert main(["demo", f"run={run}", f"run={run}", f"export={folder}"]) == 0
    assert {path.name for path in folder.iterdir()} == {"app.py", "requirements.txt", "README.md", "run1", "run2"}
    assert clipadapt.load(folder / "run2", device="cpu").class_names == clipadapt.load(run, device="cpu").class_names
    card = (folder / "README.md").read_text()
    assert card.startswith('---\ntitle: "coop on drawn-shapes"\nsdk: gradio\n')
    compile((folder / "app.py").read_text(), "app.py", "exec")
    assert main(["demo", f"run={run}", f"export={folder}"]) == 2
