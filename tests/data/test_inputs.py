"""What callers give as images: taken, or refused in one sentence."""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipadapt.data.inputs import as_list, check_pixels, content_digest, to_image
from clipadapt.errors import UserError
from tests.broken import noise

PREPROCESS = {"mean": [0.5, 0.4, 0.4], "std": [0.25, 0.25, 0.25]}
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def closed() -> Image.Image:
    image = Image.new("RGB", (4, 4))
    image.close()
    return image


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("a.png", 1),
        (Path("a.png"), 1),
        (Image.new("RGB", (4, 4)), 1),
        (PIXELS, 1),
        (PIXELS[..., 0], 1),
        (PIXELS[None], 1),
        (np.stack([PIXELS, PIXELS]), 2),
        (torch.zeros(3, 8, 8), 1),
        (torch.zeros(2, 3, 8, 8), 2),
        (["a.png", Path("b.png"), PIXELS], 3),
        ({"a.png"}, 1),
        ((name for name in ("a.png", "b.png")), 2),
        (b"bytes", 1),
    ],
)
def test_one_picture_or_several(given, count):
    assert len(as_list(given)) == count


@pytest.mark.parametrize(
    "given",
    [None, 5, 0.5, True, {"a": "a.png"}, np.array(5), torch.tensor(1.0), object(), len],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_picture(given):
    with pytest.raises(
        UserError, match="images must be a path, the bytes of a file, a PIL image, an array of 8-bit pixels"
    ):
        as_list(given)


@pytest.mark.parametrize("given", [[], (), iter([]), torch.zeros(0, 3, 8, 8), np.zeros((0, 4, 5, 3), np.uint8)])
def test_no_pictures(given):
    with pytest.raises(UserError, match="there are no images to classify"):
        as_list(given)


def test_arrays_are_the_images_they_hold():
    assert np.array_equal(np.asarray(to_image(PIXELS)), PIXELS)
    assert np.array_equal(np.asarray(to_image(PIXELS[::2, ::-1])), PIXELS[::2, ::-1])
    grey = np.asarray(to_image(PIXELS[..., 0]))
    assert np.array_equal(grey, np.repeat(PIXELS[..., :1], 3, axis=2))
    assert np.array_equal(np.asarray(to_image(PIXELS[..., :1])), grey)
    opaque = np.concatenate([PIXELS, np.full((4, 5, 1), 255, np.uint8)], axis=2)
    assert np.array_equal(np.asarray(to_image(opaque)), PIXELS)
    assert content_digest(PIXELS, to_image(PIXELS)) == content_digest(to_image(PIXELS), to_image(PIXELS))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PIXELS / 255, r"8-bit pixels \[height, width, 3\].* of float64 \[4, 5, 3\]"),
        (PIXELS.transpose(2, 0, 1), r"of uint8 \[3, 4, 5\]"),
        (np.zeros((0, 5, 3), np.uint8), r"of uint8 \[0, 5, 3\]"),
        (np.zeros((4, 5, 2), np.uint8), r"of uint8 \[4, 5, 2\]"),
        (np.zeros(4, np.uint8), r"of uint8 \[4\]"),
        (b"bytes", "it is not an image of a known format"),
        (None, "one is of the type NoneType"),
        (5, "one is of the type int"),
        (["a.png"], "one is of the type list"),
        (closed(), "a PIL image can't be read: Operation on closed image"),
        (Image.new("F", (4, 4)), "1 band of 32-bit floating-point numbers"),
        (Image.new("RGB", (0, 4)), "it has no pixels"),
        (Image.new("L", (1, 1001)), "one side is 1,001 times as long as the other"),
        ("", "it is a folder, and no file"),
        ("a\0b", r"can't be read: it holds the character \\0"),
        ("\ud800.png", "can't be read: it isn't UTF-8"),
        ("x" * 300, "a name in it has 300 bytes, and 255 are possible"),
    ],
)
def test_pictures_that_are_refused(given, said):
    with pytest.raises(UserError, match=said) as told:
        to_image(given)
    assert "\n" not in str(told.value)


def test_an_image_that_is_as_thin_as_can_be():
    assert to_image(Image.new("L", (1, 1000))).size == (1, 1000)


def test_a_pil_image_of_a_damaged_file(tmp_path):
    content = noise(tmp_path / "a.png").read_bytes()
    with pytest.raises(UserError, match="a PIL image can't be read"):
        to_image(Image.open(io.BytesIO(content[: len(content) // 2])))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(3, 4, 4), r"must be pixels \[3, 8, 8\] as the backbone reads them, and one is \[3, 4, 4\]"),
        (
            torch.zeros(3, 8, 8, dtype=torch.uint8),
            "preprocessed by the backbone's transform, and one is of torch.uint8",
        ),
        (torch.full((3, 8, 8), float("nan")), "not finite"),
        (torch.full((3, 8, 8), float("inf")), "not finite"),
        (
            torch.linspace(0, 255, 192).reshape(3, 8, 8),
            r"from -2\.00 \(black\) to 2\.40 \(white\), and .* from 0 to 255",
        ),
        (
            torch.linspace(0, 1, 192).reshape(3, 8, 8),
            "must be normalised by .* values from 0 to 1: apply it, or give",
        ),
        (torch.linspace(-9, 1, 192).reshape(3, 8, 8), "values from -9 to 1"),
    ],
)
def test_tensors_that_are_refused(given, said):
    with pytest.raises(UserError, match=said):
        check_pixels(given, (8, 8), PREPROCESS)


@pytest.mark.parametrize("ends", [(-2.0, 2.4), (0.2, 0.6), (-0.5, 1.0), (0.0, 2.4), (-3.0, 3.0)])
def test_tensors_that_may_be_normalised(ends):
    given = torch.linspace(*ends, 192).reshape(3, 8, 8)
    assert check_pixels(given, (8, 8), PREPROCESS) is given
    check_pixels(given.clamp(0, 1), (8, 8), {"mean": [0.0] * 3, "std": [1.0] * 3})


def test_a_tensor_that_was_probably_not_normalised_is_told():
    with pytest.warns(UserWarning, match=r"values from 0\.17 to 0\.92, as pixels have that aren't normalised"):
        check_pixels(torch.linspace(0.17, 0.92, 192).reshape(3, 8, 8), (8, 8), PREPROCESS)


def test_bytes_and_open_files_are_read(tmp_path):
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    stream = io.BytesIO(content)
    stream.seek(0, io.SEEK_END)
    with open(tmp_path / "a.png", "rb") as file, tempfile.SpooledTemporaryFile() as other:
        other.write(content)
        given = [content, bytearray(content), memoryview(content), stream, file, other]
        for each in given:
            assert as_list(each) == [each] and to_image(each).tobytes() == image.tobytes()
            assert content_digest(each, image) == content_digest(tmp_path / "a.png", image)
    with pytest.raises(UserError, match=r"open file of an image can't be read: I/O operation on closed file"):
        to_image(file)
    with pytest.raises(UserError, match=r"\(its bytes\)' can't be read"):
        to_image(content[:20])
    with pytest.raises(UserError, match="given as a file of text"):
        to_image(io.StringIO("a.png"))


def test_tensors_of_any_floating_numbers():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        assert check_pixels(torch.zeros(3, 8, 8, dtype=dtype), (8, 8), PREPROCESS).dtype == dtype
