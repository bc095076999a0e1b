"""Fonts for texts in scripts that the pictures' usual font lacks, such as Chinese, Korean, Arabic and Devanagari."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAMILIES = "Noto Sans"
"""Beginnings of the names of families that have, together, all scripts."""
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
SHOWN = 5


@contextmanager
def covering_fonts(figure: "Figure") -> Iterator[None]:
    """Give the texts of a figure fallback fonts for characters that their font lacks, while it is drawn.

    One warning names the package of fonts to install if there are none; matplotlib's own, one for each character, are
    left out.
    """
    missing = lacking(characters(figure))
    families = find_families(missing) if missing else {}
    if families:
        from matplotlib.text import Text

        for text in figure.findobj(Text):
            text.set_fontfamily([*text.get_fontfamily(), *families])
    if uncovered := missing.difference(*families.values()):
        advise("".join(sorted(uncovered)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        yield


def characters(figure: "Figure") -> set[str]:
    """Return the characters of all texts of a figure that are to be seen."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # these make the texts, which drawing would do later
    return {letter for text in figure.findobj(Text) for letter in text.get_text() if letter.isprintable()} - {" "}


def lacking(letters: Iterable[str]) -> set[str]:
    """Return the characters that the usual font lacks."""
    from matplotlib.font_manager import FontProperties, findfont

    return {*letters} - read_characters(findfont(FontProperties()))


def find_families(missing: Iterable[str]) -> dict[str, set[str]]:
    """Return installed families that together have as many of the characters as can be had, each with its own."""
    from matplotlib.font_manager import fontManager

    left, found = {*missing}, dict[str, set[str]]()
    plain = {font.name: font.fname for font in fontManager.ttflist if font.style == "normal" and font.weight == 400}
    for name in sorted(name for name in plain if name.startswith(FAMILIES)):
        if left and (own := left & read_characters(plain[name])):
            found[name] = own
            left -= own
    return found


@cache
def read_characters(path: str) -> frozenset[str]:
    """Return the characters that a font file has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(path).get_charmap()))


@cache
def advise(missing: str) -> None:
    """Warn, once for the same characters, that they are drawn as boxes, and say which fonts to install."""
    east_asian = [letter for letter in missing if unicodedata.name(letter, "").startswith(EAST_ASIAN)]
    packages = ["fonts-noto-cjk"] * bool(east_asian) + ["fonts-noto-core"] * (len(east_asian) < len(missing))
    warnings.warn(
        f"pictures show boxes for characters that their font lacks ({' '.join(missing[:SHOWN])}"
        f"{' …' if len(missing) > SHOWN else ''}): install Noto fonts, such as Debian's {' and '.join(packages)}, and "
        "delete matplotlib's list of fonts in ~/.cache/matplotlib",
        stacklevel=6,
    )
