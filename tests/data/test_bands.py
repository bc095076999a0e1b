"""Bands that are chosen as colours, and the range of their values."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import clipadapt
from clipadapt.cli import main
from clipadapt.data.bands import Bands
from clipadapt.data.images import fingerprints
from clipadapt.errors import DataError, SettingsError, UserError
from tests.data.test_pixels import write_tiff

needs_tifffile = pytest.mark.skipif(find_spec("tifffile") is None, reason="needs tifffile: pip install -e '.[tiff]'")
RANDOM = np.random.default_rng(0)
MANY = RANDOM.integers(0, 10_000, (8, 12, 13), dtype=np.uint16)


def scaled(values, low, high):
    """A plain computation of the pixels."""
    return np.round(255 * np.clip((values.astype(float) - low) / (high - low), 0, 1)).astype(np.uint8)


def test_bands_are_counted_from_one_and_the_range_is_mapped():
    found = np.asarray(Bands([4, 3, 2], [1000, 8000]).image(MANY))
    assert np.array_equal(found, scaled(MANY[..., [3, 2, 1]], 1000, 8000))
    grey = np.asarray(Bands([13], [0, 10_000]).image(MANY))
    assert np.array_equal(grey, np.repeat(scaled(MANY[..., 12:], 0, 10_000), 3, axis=-1))


def test_values_beyond_the_range_and_those_that_are_no_numbers():
    values = np.array([[-5.0, 0.25, 1.0, 7.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    found = np.asarray(Bands(value_range=[-1, 1]).image(values))[0, :, 0]
    assert found.tolist() == [0, 159, 255, 255, 0, 255, 0]


def test_known_ranges_need_none():
    eight = RANDOM.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Bands([3, 2, 1]).image(eight)), eight[..., ::-1])
    assert np.array_equal(np.asarray(Bands([1, 2, 3]).image(MANY)), scaled(MANY[..., :3], 0, 65_535))


@pytest.mark.parametrize(
    ("bands", "ends", "values", "message"),
    [
        (None, [0, 1], MANY, r"it has 13 bands: choose task\.bands=\[3,2,1\]"),
        ([14], None, MANY, "it has 13 bands, and no band 14"),
        ([2], None, np.zeros((4, 4), np.uint8), "it has 1 band, and no band 2"),
        ([1], None, np.zeros((4, 4), np.int16), r"numbers of the kind int16: give the values .* task\.value_range="),
        ([1], [0, 1], np.zeros((2, 4, 4, 3)), r"it has the shape \[2, 4, 4, 3\]"),
    ],
)
def test_what_an_image_lacks(bands, ends, values, message):
    with pytest.raises(DataError, match=message):
        Bands(bands, ends).image(values)


@pytest.mark.parametrize(
    ("bands", "ends", "message"),
    [
        ([1, 2], None, r"task\.bands=\[1, 2\] does not fit"),
        (None, [1, 1], r"task\.value_range=\[1, 1\] does not fit"),
        (None, [1], r"task\.value_range=\[1\] does not fit"),
    ],
)
def test_choices_that_cannot_be(bands, ends, message):
    with pytest.raises(DataError, match=message):
        Bands(bands, ends)
    with pytest.raises(DataError, match=message):
        clipadapt.load_task("digits", shots=1, bands=bands, value_range=ends)


def test_settings_that_do_not_fit():
    for options in ({"bands": [0]}, {"value_range": "all"}):
        with pytest.raises(SettingsError, match="does not fit"):
            clipadapt.load_task("digits", shots=1, **options)
    with pytest.raises(DataError, match="are for image files, in folders or listed in tables"):
        clipadapt.load_task("digits", shots=1, bands=[1])


def test_without_tifffile_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"a\.tif' can't be read: .* pip install 'clipadapt\[tiff\]'"):
        Bands([1]).open(write_tiff(tmp_path / "a.tif", MANY))


@needs_tifffile
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages", "compressed"])
def test_tiffs_of_every_kind(tmp_path, dtype, layout):
    import tifffile

    values, path = MANY.astype(dtype), tmp_path / "a.tif"
    planes, grey = values.transpose(2, 0, 1), {"photometric": "minisblack"}
    if layout == "interleaved":
        write_tiff(path, values, {"u": 1, "i": 2, "f": 3}[values.dtype.kind], colour=1)
    elif layout == "pages":
        tifffile.imwrite(path, planes, **grey)
    else:
        more = {"compression": "lzw"} if layout == "compressed" else {}
        tifffile.imwrite(path, planes, planarconfig="separate", **grey, **more)
    found = np.asarray(Bands([4, 3, 2], [1000, 8000]).open(path))
    assert np.array_equal(found, scaled(MANY[..., [3, 2, 1]], 1000, 8000))


def make_folder(root, write):
    for name, level in (("dark", 1000), ("bright", 7000)):
        for index in range(3):
            (root / name).mkdir(parents=True, exist_ok=True)
            write(root / name / f"{index}.tif", np.minimum(MANY // 8 + level + index, 10_000).astype(np.uint16))


@needs_tifffile
def test_a_run_keeps_its_bands(tmp_path, clip):
    root = tmp_path / "images"
    make_folder(root, write_tiff)
    with pytest.raises(DataError, match=r"choose task\.bands"):
        clipadapt.load_task("folder", root=str(root), shots=1)
    chosen = ["task.bands=[4,3,2]", "task.value_range=[0,10000]"]
    assert main(["data", "verify", "folder", f"data.root={root}"]) == 2
    assert main(["data", "verify", "folder", f"data.root={root}", *chosen]) == 0
    options = {"root": str(root), "shots": 1, "views": 0, "value_range": [0, 10_000]}
    task, other = (clipadapt.load_task("folder", bands=bands, **options) for bands in ([4, 3, 2], [1]))
    assert not {*fingerprints(task.support.images)} & {*fingerprints(other.support.images)}
    result = clipadapt.finetune(clip, task, "zero_shot", workers=0, cpu=True, cache=None)
    run = result.save(tmp_path / "run")
    predictor = clipadapt.load(run)
    path = root / "dark" / "0.tif"
    rgb = np.asarray(Bands([4, 3, 2], [0, 10_000]).open(path))
    with torch.no_grad():
        expected = predictor.model(clip.transform(Image.fromarray(rgb))[None]).softmax(dim=-1)
    for picture in (path, path.read_bytes(), np.minimum(MANY // 8 + 1000, 10_000).astype(np.uint16)):
        torch.testing.assert_close(predictor.predict_proba(picture), expected)
    found = clipadapt.evaluate(run, "folder", root=str(root))
    assert found["tests"]["test"]["accuracy"] == result.metrics["accuracy"]
    with pytest.raises(UserError, match="it has 3 bands, and no band 4"):
        predictor.predict(np.zeros((4, 4, 3), np.uint8))
