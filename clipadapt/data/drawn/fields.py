"""Signed distance fields: how far each point of a form's own square lies inside its edge.

A form is stored as a small grid of distances over the square [-EXTENT, EXTENT] squared, in which the form itself spans
[-1, 1] along its longer side. Distances make every later wish cheap: bolder, thinner or outlined is an offset, and any
resolution is sampled without aliasing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

EXTENT = 1.5
CELLS = 64
RASTER = 192


@dataclass(frozen=True)
class Field:
    """A form as distances [CELLS, CELLS] (positive inside), its half extents (x, y) and its greatest depth."""

    distances: np.ndarray
    half_extents: tuple[float, float]
    depth: float

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Return the distances `[...]` at points `[2, ...]` (x, y) of the form's own square."""
        grid = (points[::-1] + EXTENT) * (CELLS / (2 * EXTENT)) - 0.5
        return ndimage.map_coordinates(self.distances, grid, order=1, mode="nearest")


def from_raster(inside: np.ndarray) -> Field:
    """Return the field of a raster `[RASTER, RASTER]` of booleans over the square [-EXTENT, EXTENT] squared."""
    distances = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    step = RASTER // CELLS
    coarse = distances[step // 2 :: step, step // 2 :: step] * (2 * EXTENT / RASTER)
    rows, columns = np.nonzero(inside)
    half_width = (columns.max() + 1 - columns.min()) * EXTENT / RASTER
    half_height = (rows.max() + 1 - rows.min()) * EXTENT / RASTER
    return Field(coarse.astype(np.float32), (half_width, half_height), float(coarse.max()))


def centred(mask: Image.Image) -> np.ndarray:
    """Enlarge a cropped grey mask until its longer side spans [-1, 1], and return it as a raster of booleans."""
    span = RASTER / EXTENT
    factor = span / max(mask.size)
    width, height = (max(2, round(side * factor)) for side in mask.size)
    canvas = Image.new("L", (RASTER, RASTER))
    canvas.paste(
        mask.resize((width, height), Image.Resampling.BILINEAR), ((RASTER - width) // 2, (RASTER - height) // 2)
    )
    return np.asarray(canvas) > 127
