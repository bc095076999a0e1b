"""Mistakes: their order, their table, CSV and page."""

import csv
import io
import re

from PIL import Image

from clipadapt.data.images import LazyImages, open_image
from clipadapt.data.tasks import Split
from clipadapt.report import gallery
from clipadapt.report.mistakes import Mistake, Neighbour, group, in_order, mistakes_csv, mistakes_page, mistakes_table
from tests.report.test_tables import text_of

NEAR = [Neighbour(1, "train/b.png", "dog", 0.875), Neighbour(0, "train/a.png", "cat <wild>", 0.75)]
PAIRS = [("cat <wild>", "dog", 0.5), ("dog", "owl", 0.9), ("cat <wild>", "dog", 0.75), ("owl", "dog", 0.8)]


def mistakes(test="test"):
    found = [Mistake(test, k, f"test/{k}.png", *pair, nearest=NEAR) for k, pair in enumerate(PAIRS)]
    return in_order(found)


def split(count=5):
    return Split([Image.new("RGB", (9, 9), (40 * k, 90, 120)) for k in range(count)], [0] * count)


def test_frequent_confusions_and_confident_answers_come_first():
    assert [one.index for one in mistakes()] == [2, 0, 1, 3]
    assert [*group(mistakes())] == ["cat <wild> → dog", "dog → owl", "owl → dog"]
    both = group([*mistakes(), *mistakes("sketch")])
    assert next(iter(both)) == "test: cat <wild> → dog" and len(both) == 6


def test_the_table_and_csv_have_every_mistake():
    text = text_of(mistakes_table(mistakes()))
    assert "4 mistakes" in text and "cat <wild> → dog (2)" in text
    assert [line.split("│")[1].strip() for line in text.splitlines() if "%" in line] == [
        f"test/{k}.png" for k in (2, 0, 1, 3)
    ]
    first = next(csv.DictReader(io.StringIO(mistakes_csv(mistakes()))))
    assert first["image"] == "test/2.png" and first["answer"] == "dog" and first["probability"] == "0.75"
    assert (first["nearest_1"], first["label_1"], first["cosine_1"]) == ("train/b.png", "dog", "0.875")


def test_the_page_needs_no_other_file():
    text = mistakes_page("coop on pets", mistakes(), {"test": split()}, split()).html()
    assert "cat &lt;wild&gt; → dog (2)" in text and "4 test images of 5 answered wrongly" in text
    assert text.count("data:image/jpeg;base64,") == 4 * 3
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert text.index("dog: 75.0 %") < text.index("dog: 50.0 %")


def test_a_page_shows_only_so_many_and_says_so(monkeypatch):
    monkeypatch.setattr(gallery, "MAX_CARDS", 3)
    text = mistakes_page("coop on pets", mistakes(), {"test": split()}, split()).html()
    assert text.count('class="card"') == 3 and "The first 3 images of 4 are shown." in text


def test_an_image_that_is_gone_is_told(tmp_path):
    gone = Split(LazyImages([str(tmp_path / f"{k}.png") for k in range(5)], open_image), [0] * 5)
    text = mistakes_page("coop on pets", mistakes(), {"test": gone}, split()).html()
    assert "It can&#39;t be shown: there is no image file" in text
