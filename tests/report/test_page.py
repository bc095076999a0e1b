"""The page of a study: what it says, and how it looks to a browser."""

import re
import shutil
import subprocess
from itertools import pairwise

import pytest
from PIL import Image

from clipadapt.data.images import LazyImages, open_image
from clipadapt.report.page import Page, PredictionChanges, thumbnails
from clipadapt.report.sheets import Sheet

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHEET = Sheet("Accuracy of <tiny>", ["data", "method", *(f"{n} shots" for n in range(1, 17))], [], 2, ["* zero-shot"])
LINES = [[["digits", name, *["81.2 ± 1.3"] * 16] for name in ("zero-shot *", "CoOp & more")]]
IMAGE = Image.new("RGB", (8, 8))
NAMES = ["cat", "dog", "an animal whose name is rather long to be read on a phone"]


def gains(**changes):
    images = [Image.new("RGB", (40, 30), (40 * index, 90, 120)) for index in range(5)]
    plain = {
        "class_names": NAMES,
        "labels": [0, 0, 1, 1, 2],
        "before": [1, 0, 1, 1, 2],
        "after": [0, 0, 1, 0, 2],
        "images": images,
    }
    return PredictionChanges("CoOp on digits", **(plain | changes))


def page(*found):
    sheet = Sheet(SHEET.title, SHEET.head, LINES, SHEET.words, SHEET.notes)
    return Page("Few shot", ["one method <em>"], [sheet], gains=found).html()


def test_what_changed():
    found = gains()
    assert (found.changed(to_right=True), found.changed(to_right=False)) == ([0], [3])
    assert found.by_class() == [("cat", 50.0), (NAMES[2], 0.0), ("dog", -50.0)]


def test_a_class_without_test_images_has_no_bar():
    found = gains(labels=[0, 0, 0, 0, 0])
    assert [name for name, _ in found.by_class()] == ["cat"]


def test_it_says_everything_and_escapes_it():
    text = page(gains())
    assert "Accuracy of &lt;tiny&gt;" in text and "CoOp &amp; more" in text and "one method &lt;em&gt;" in text
    assert "1 answer became right, 1 became wrong" in text
    assert re.search(r'width: 100.0%"></i></span><span class="number">\+50.0<', text)
    assert text.count("data:image/jpeg;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', text), "it needs no other file"


def test_images_that_cannot_be_had():
    text = page(gains(images=None, unread="the images can't be shown: no folder"))
    assert "data:image/jpeg" not in text and "the images can&#39;t be shown: no folder" in text


def test_of_many_classes_the_extremes_are_shown():
    names = [f"class {index}" for index in range(100)]
    labels = list(range(100))
    text = page(gains(class_names=names, labels=labels, before=[0] * 100, after=labels, images=None))
    assert text.count('class="track"') == 30 and "70 classes between these" in text


@pytest.mark.parametrize("count, last", [(5, 4), (12, 11), (13, 11), (23, 21), (240, 220)])
def test_images_are_from_all_classes(count, last):
    names = [f"class {index}" for index in range(count + 1)]
    labels = list(range(count))
    found = gains(class_names=names, labels=labels, before=[count] * count, after=labels, images=[IMAGE] * count)
    shown = [int(image["label"].split()[1]) for image in thumbnails(found, labels)]
    gaps = {after - before for before, after in pairwise(shown)}
    assert len(shown) == min(count, 12) and (shown[0], shown[-1]) == (0, last) and max(gaps) - min(gaps) <= 1


def test_it_says_how_many_of_the_images_are_shown():
    text = page(gains(labels=[0] * 30, before=[1] * 23 + [0] * 7, after=[0] * 23 + [1] * 7, images=[IMAGE] * 30))
    assert "Wrong before, right now (12 of 23)<" in text and "Right before, wrong now<" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(tmp_path, width):
    script = (
        "<script>document.title = document.documentElement.scrollWidth + ' of ' + window.innerWidth</script></body>"
    )
    (tmp_path / "page.html").write_text(page(gains(), gains()).replace("</body>", script))
    (tmp_path / "frame.html").write_text(
        f'<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>'
        "<script>onload = () => { document.title = frames[0].document.title }</script>"
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
    ]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/frame.html"], capture_output=True, text=True, timeout=120, check=True
    )
    (title,) = re.findall("<title>(.*)</title>", done.stdout)
    whole, seen = map(int, title.split(" of "))
    assert whole <= seen == width
    assert "CONSOLE" not in done.stderr


def test_an_image_that_is_gone_is_told(tmp_path):
    images = LazyImages([str(tmp_path / f"{number}.png") for number in range(5)], open_image)
    assert "the images can&#39;t be shown: there is no image file" in page(gains(images=images))
