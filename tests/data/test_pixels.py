"""Pixels of kinds that cameras, satellites and scanners write: read with their range, or refused by their names."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from clipadapt.data.broken import check
from clipadapt.data.few_shot import make_task
from clipadapt.data.images import open_image, verify_image
from clipadapt.data.pixels import find_doubt, to_rgb
from clipadapt.data.sources import folder
from clipadapt.errors import UserError


def write_tiff(path, array, numbers=1, colour=2, extra=None):
    """Write an array [height, width, bands] as an uncompressed TIFF of one strip."""
    height, width, bands = array.shape
    shorts = {258: [8 * array.dtype.itemsize] * bands, 259: [1], 262: [colour], 277: [bands], 339: [numbers] * bands}
    shorts |= {} if extra is None else {338: [extra]}
    entries = {tag: ("H", 3, values) for tag, values in shorts.items()}
    entries |= {
        tag: ("I", 4, [value]) for tag, value in ((256, width), (257, height), (278, height), (279, array.nbytes))
    }
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    long = {tag: struct.pack("<" + each[0] * len(each[2]), *each[2]) for tag, each in entries.items()}
    entries[273] = ("I", 4, [start + sum(len(value) for value in long.values() if len(value) > 4)])
    table, values = b"", b""
    for tag, (code, kind, found) in sorted(entries.items()):
        packed = struct.pack("<" + code * len(found), *found)
        table += struct.pack("<HHI", tag, kind, len(found))
        table += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", start + len(values))
        values += packed if len(packed) > 4 else b""
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + values + array.tobytes())
    return path


@pytest.mark.parametrize("text", [True, False])
def test_twelve_bits_of_a_pgm_are_read_with_their_range(tmp_path, text):
    values = [0, 4095, 2048, 1024]
    content = " ".join(map(str, values)).encode() if text else struct.pack(">4H", *values)
    (tmp_path / "a.pgm").write_bytes(b"P%d 2 2 4095\n" % (2 if text else 5) + content)
    verify_image(tmp_path / "a.pgm")
    assert [*open_image(tmp_path / "a.pgm").getchannel(0).tobytes()] == [0, 255, 128, 64]


@pytest.mark.parametrize(
    ("dtype", "bands", "numbers", "sentence"),
    [
        ("uint16", 13, 1, "13 bands of 16-bit whole numbers without sign"),
        ("uint8", 5, 1, "5 bands of 8-bit whole numbers without sign"),
        ("int8", 1, 2, "1 band of 8-bit whole numbers with a sign"),
        ("int8", 3, 2, "3 bands of 8-bit whole numbers with a sign"),
        ("int16", 1, 2, "1 band of 16-bit whole numbers with a sign"),
        ("uint32", 1, 1, "1 band of 32-bit whole numbers without sign"),
        ("float32", 1, 3, "1 band of 32-bit floating-point numbers"),
        ("float32", 3, 3, "3 bands of 32-bit floating-point numbers"),
        ("float64", 1, 3, "1 band of 64-bit floating-point numbers"),
    ],
)
@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_bands_depth_and_sign_of_what_is_not_read(tmp_path, reader, dtype, bands, numbers, sentence):
    colour = 2 if bands > 2 else 1
    write_tiff(tmp_path / "a.tif", np.ones((4, 4, bands), dtype), numbers, colour)
    with pytest.raises(UserError, match=rf"a\.tif' can't be read: it has {sentence}, whose range .* save it so"):
        reader(tmp_path / "a.tif")


def test_a_fourth_band_is_transparency_only_if_the_file_says_so(tmp_path):
    array = np.full((4, 4, 4), 9, np.uint8)
    array[..., 0], array[..., 3] = 200, 0
    assert open_image(write_tiff(tmp_path / "infrared.tif", array)).getpixel((0, 0)) == (200, 9, 9)
    assert open_image(write_tiff(tmp_path / "alpha.tif", array, extra=2)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("alpha", [0, 1, 9])
def test_what_transparency_leaves_next_to_nothing_of(alpha):
    values = np.random.default_rng(0).integers(0, 255, (8, 8, 4), np.uint8)
    values[..., 3] = alpha
    assert "white" in str(find_doubt(to_rgb(Image.fromarray(values))))
    values[..., 3] = 255
    assert find_doubt(to_rgb(Image.fromarray(values))) is None


def test_pillow_logs_nothing_to_the_terminal(tmp_path):
    path = write_tiff(tmp_path / "a.tif", np.ones((4, 4, 13), np.uint16))
    program = f"from clipadapt.data.images import open_image; open_image({str(path)!r})"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stderr
    assert "has 13 bands" in told and "More samples per pixel" not in told


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_with_nothing_to_see_are_told_by_file(tmp_path, split):
    for seed, place in enumerate(f"{part}/{name}" for part in ("train", "test") for name in ("cat", "dog")):
        noise(tmp_path / place / "0.png", seed)
        noise(tmp_path / place / "1.png", seed + 10)
    clear = np.random.default_rng(0).integers(0, 255, (8, 8, 4), np.uint8)
    clear[..., 3] = 0
    Image.fromarray(clear).save(tmp_path / split / "cat" / "0.png")
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 64).save(tmp_path / split / "dog" / "0.png")
    with pytest.warns(
        UserWarning, match=r"2 images have nothing to see in RGB: .*cat/0\.png \(of one colour, white"
    ) as told:
        check(make_task(folder(str(tmp_path)), 2, 1))
    assert any("dog/0.png (nearly black, with no value above 16 of 255)" in str(each.message) for each in told)
