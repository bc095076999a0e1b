"""Pictures of what an adapted CLIP looks at, and of its class weights before and after."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clipadapt.report.pictures import BLUE, GREY, MAX_LABELS, figures, save, short_label

STRENGTH = 0.55
"""Share of the colour map in a picture of attention."""
SIDE = 224
"""Pixels of the shorter side of such a picture, at least."""
COLUMNS = 4


def attention_picture(image: Image.Image, attention: np.ndarray) -> Image.Image:
    """Return an image in grey with the attention `[rows, columns]` over it, from dark (least) to yellow (most).

    Args:
        image: as the model sees it.
        attention: of its patches.
    """
    from matplotlib import colormaps

    scale = max(1, -(-SIDE // min(image.size)))
    size = image.width * scale, image.height * scale
    spread = attention - attention.min()
    levels = Image.fromarray((255 * spread / max(float(spread.max()), 1e-12)).astype(np.uint8))
    heat = np.asarray(levels.resize(size, Image.Resampling.BICUBIC))
    coloured = Image.fromarray((255 * colormaps["inferno"](heat)[..., :3]).astype(np.uint8))
    grey = image.convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC)
    return Image.blend(grey, coloured, STRENGTH)


def attention_sheet(rows: Sequence[tuple[Image.Image, np.ndarray, str]], path: str | Path) -> Path:
    """Draw images beside their pictures of attention.

    Args:
        rows: an image as the model sees it, the attention of its patches `[rows, columns]`, and a line of text, each.
        path: the PNG file to write.
    """
    lines = -(-2 * len(rows) // COLUMNS)
    figure, panels = figures(2 * len(rows), 2.2 * COLUMNS, 2.5 * lines, COLUMNS)
    for place, (image, attention, text) in enumerate(rows):
        picture = attention_picture(image, attention)
        left, right = panels[2 * place : 2 * place + 2]
        left.imshow(image.resize(picture.size, Image.Resampling.BICUBIC))
        right.imshow(picture)
        left.set_title(short_label(text), fontsize=8, loc="left")
        for axes in (left, right):
            axes.set_axis_off()
    return save(figure, path)


def plane_picture(
    before: np.ndarray, after: np.ndarray, shares: tuple[float, float], class_names: Sequence[str], path: str | Path
) -> Path:
    """Draw the class weights before and after adaptation in the plane of their two principal components.

    Args:
        before: points of zero-shot CLIP's, `[C, 2]`.
        after: points of the adapted ones, `[C, 2]`.
        shares: of the variance, of both components.
        class_names: names of the C classes.
        path: the PNG file to write.
    """
    figure, [axes] = figures(1, 7.0, 5.6)
    for one, other in zip(before, after, strict=True):
        axes.annotate("", other, one, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.8})
    axes.scatter(before[:, 0], before[:, 1], s=22, facecolor="white", edgecolor=GREY, zorder=3, label="zero-shot")
    axes.scatter(after[:, 0], after[:, 1], s=22, color=BLUE, zorder=4, label="adapted")
    if len(class_names) <= MAX_LABELS:
        for name, point in zip(class_names, after, strict=True):
            axes.annotate(short_label(name), point, xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel=f"first component ({100 * shares[0]:.0f} % of the variance)",
        ylabel=f"second component ({100 * shares[1]:.0f} %)",
        title="Class weights before and after adaptation",
    )
    axes.margins(0.12)
    axes.legend(frameon=False, loc="best", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)
