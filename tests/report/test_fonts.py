"""Names in scripts that the pictures' font lacks: another font where there is one, else one note."""

import warnings

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from clipadapt.report import fonts, pictures

CIRCLED = "ⒶⒷ"
"""Characters that matplotlib's usual font lacks, and another that comes with it has."""


@pytest.fixture(autouse=True)
def told_anew():
    fonts.advise.cache_clear()
    yield
    fonts.advise.cache_clear()


def fake(name, like):
    """A font of another name, which has the characters of one that is there."""
    path = font_manager.findfont(like, fallback_to_default=False)
    return font_manager.FontEntry(fname=path, name=name, style="normal", weight=400)


def draw(tmp_path, names, file="confusion.png"):
    """A picture with class names, and the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        path = pictures.confusion_matrix(np.eye(len(names)), names, tmp_path / file)
    with Image.open(path) as image:
        return np.asarray(image), [str(one.message) for one in told]


def use(monkeypatch, *more):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, *more])


def test_a_font_that_has_them_is_taken(tmp_path, monkeypatch):
    boxes, told = draw(tmp_path, [CIRCLED, "dog"])
    assert len(told) == 1
    use(monkeypatch, fake("Noto Sans Circled", "STIXGeneral"))
    found, told = draw(tmp_path, [CIRCLED, "dog"])
    assert told == [] and (found.shape != boxes.shape or (found != boxes).any())


def test_families_are_those_that_are_needed(monkeypatch):
    installed = {"Noto Sans CJK JP": "猫犬", "Noto Sans Arabic": "قط", "Noto Sans CJK KR": "猫고", "Other": "ก"}
    entries = [font_manager.FontEntry(fname=name, name=name, style="normal", weight=400) for name in installed]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "read_characters", lambda path: frozenset(installed[path]))
    found = fonts.find_families("猫고قก")
    assert found == {"Noto Sans Arabic": {"ق"}, "Noto Sans CJK JP": {"猫"}, "Noto Sans CJK KR": {"고"}}


@pytest.mark.parametrize(
    ("names", "packages"),
    [
        (["猫", "いぬ", "고양이"], "fonts-noto-cjk,"),
        (["बिल्ली", "dog"], "fonts-noto-core,"),
        (["猫", "बिल्ली"], "fonts-noto-cjk and fonts-noto-core,"),
    ],
)
def test_one_note_names_the_package(tmp_path, monkeypatch, names, packages):
    plain = [font for font in font_manager.fontManager.ttflist if not font.name.startswith(fonts.FAMILIES)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", plain)
    _, told = draw(tmp_path, names)
    assert len(told) == 1 and f"such as Debian's {packages}" in told[0] and "pictures show boxes" in told[0]
    _, told = draw(tmp_path, names, "again.png")
    assert told == [], "it was told"


def test_names_that_the_usual_font_has_change_nothing(tmp_path, drawn_figures):
    _, told = draw(tmp_path, ["кошка", "σκύλος", "Bär"])
    [figure] = drawn_figures
    assert told == [] and {tuple(label.get_fontfamily()) for label in figure.axes[0].get_xticklabels()} == {
        ("sans-serif",)
    }
