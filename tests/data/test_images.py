"""Image files of every kind a user's folder may hold come out as upright RGB, and damaged ones with their name."""

import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clipadapt.data.images import LazyImages, file_bytes, open_image, select, verify_image
from clipadapt.data.pixels import to_rgb
from clipadapt.errors import UserError


def pixel(image, at=(0, 0)):
    assert image.mode == "RGB"
    return image.getpixel(at)


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "gif", "webp", "tif"])
def test_formats(tmp_path, extension):
    path = save(tmp_path / f"a.{extension}", Image.new("RGB", (9, 7), (200, 30, 60)))
    image = open_image(path)
    assert image.size == (9, 7)
    assert np.abs(np.subtract(pixel(image, (4, 3)), (200, 30, 60))).max() <= 8


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [("L", 77, (77, 77, 77)), ("1", 1, (255, 255, 255)), ("LA", (77, 255), (77, 77, 77))],
)
def test_greyscale(tmp_path, mode, value, expected):
    assert pixel(open_image(save(tmp_path / "grey.png", Image.new(mode, (4, 4), value)))) == expected


@pytest.mark.parametrize("extension", ["png", "gif", "bmp"])
def test_palette(tmp_path, extension):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert pixel(open_image(save(tmp_path / f"p.{extension}", image))) == (10, 200, 30)


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_cmyk(tmp_path, extension):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = pixel(open_image(save(tmp_path / f"c.{extension}", image)))
    assert red[0] > 245 and max(red[1:]) < 10


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, extension):
    values = np.array([[0, 255, 257, 32896, 65280, 65535]], dtype=np.uint16)
    image = open_image(save(tmp_path / f"deep.{extension}", Image.fromarray(values)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 1, 128, 254, 255]
    assert image.mode == "RGB"


def test_big_endian_sixteen_bits():
    image = Image.fromarray(np.array([[0, 65535]], dtype=">u2"))
    assert image.mode == "I;16B"
    assert np.asarray(to_rgb(image))[0, :, 1].tolist() == [0, 255]


@pytest.mark.parametrize(("mode", "value", "kind"), [("F", 0.5, "floating-point"), ("I", 70000, "whole")])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode, value, kind):
    path = save(tmp_path / "raw.tif", Image.new(mode, (4, 4), value))
    for reader in (open_image, verify_image):
        with pytest.raises(
            UserError, match=rf"raw\.tif.* has 1 band of 32-bit {kind} numbers.* range as colours isn't"
        ):
            reader(path)


@pytest.mark.parametrize("extension", ["png", "webp", "tif"])
def test_transparency_is_laid_on_white(tmp_path, extension):
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    loaded = open_image(save(tmp_path / f"t.{extension}", image, **({"lossless": True} if extension == "webp" else {})))
    assert pixel(loaded) == (255, 0, 0)
    assert pixel(loaded, (1, 0)) == (255, 255, 255)


def test_half_transparent_is_mixed_with_white(tmp_path):
    path = save(tmp_path / "half.png", Image.new("RGBA", (1, 1), (0, 0, 0, 127)))
    assert pixel(open_image(path)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_white(tmp_path, mode):
    colour = {"P": 0, "L": 5, "RGB": (1, 2, 3)}[mode]
    image = Image.new(mode, (2, 2), colour)
    if mode == "P":
        image.putpalette([9, 9, 9, 20, 20, 20])
    path = save(tmp_path / "key.png", image, transparency=colour)
    assert pixel(open_image(path)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("extension", "depth"), [("jpg", 8), ("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("webp", 8)]
)
def test_exif_orientation_is_applied(tmp_path, extension, depth):
    values = np.zeros((16, 32), dtype=np.uint16 if depth == 16 else np.uint8)
    values[:, :16] = np.iinfo(values.dtype).max
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: what is left is then on top
    image = open_image(save(tmp_path / f"turned.{extension}", Image.fromarray(values), exif=exif))
    assert image.size == (16, 32)
    assert min(pixel(image, (8, 2))) > 240 and max(pixel(image, (8, 29))) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(tmp_path, orientation):
    corners = np.array([[0, 80], [160, 240]], dtype=np.uint8)  # as the picture is meant to be seen
    turns = [
        corners,
        corners[:, ::-1],
        corners[::-1, ::-1],
        corners[::-1],
        corners.T,
        np.rot90(corners),
        np.rot90(corners, 2).T,
        np.rot90(corners, 3),
    ]
    stored = np.kron(turns[orientation - 1], np.ones((16, 16), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(save(tmp_path / "turned.jpg", Image.fromarray(stored), exif=exif, quality=95))
    seen = np.asarray(image)[8::16, 8::16, 0].astype(int)
    assert np.abs(seen - corners).max() <= 3


def test_cmyk_may_be_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    path = save(tmp_path / "print.jpg", Image.new("CMYK", (32, 16), (255, 0, 255, 0)), exif=exif)
    image = open_image(path)
    assert image.size == (16, 32) and pixel(image)[1] > 245 and pixel(image)[0] < 10


def test_a_palette_with_degrees_of_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0] * 3)
    image.putdata([0, 1, 2])
    loaded = open_image(save(tmp_path / "faded.png", image, transparency=bytes([0, 127, 255])))
    assert [pixel(loaded, (x, 0))[0] for x in range(3)] == [255, 128, 0]


def sixteen_bit_png(path, colour_type, *samples):
    """A PNG of one pixel with 16 bits a sample, which Pillow can't write in colour."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" + struct.pack(f">{len(samples)}H", *samples)),
        b"IEND": b"",
    }
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts.items()))
    return path


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    ("colour_type", "samples", "expected"),
    [
        (2, (65535, 32896, 0), (255, 128, 0)),
        (4, (0, 65535), (0, 0, 0)),
        (4, (0, 0), (255, 255, 255)),
        (6, (65535, 0, 0, 65535), (255, 0, 0)),
        (6, (65535, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_sixteen_bits_in_colour_and_with_transparency(tmp_path, colour_type, samples, expected):
    assert pixel(open_image(sixteen_bit_png(tmp_path / "deep.png", colour_type, *samples))) == expected


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0, "quality": 100}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_kinds_of_jpeg(tmp_path, mode, options):
    colour = (200, 30, 60) if mode == "RGB" else 90
    path = save(tmp_path / "a.jpg", Image.new(mode, (20, 20), colour), **options)
    verify_image(path)
    assert np.abs(np.subtract(pixel(open_image(path), (9, 9)), colour)).max() <= 8


def test_a_damaged_exif_block_does_no_harm(tmp_path):
    path = save(tmp_path / "exif.jpg", Image.new("RGB", (8, 8), "white"), exif=b"Exif\0\0nonsense")
    assert open_image(path).size == (8, 8)


@pytest.mark.parametrize(
    ("extension", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tif", {})]
)
def test_first_frame_of_an_animation(tmp_path, extension, options):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = save(tmp_path / f"moving.{extension}", frames[0], save_all=True, append_images=frames[1:], **options)
    verify_image(path)
    assert pixel(open_image(path)) == (255, 0, 0)


@pytest.fixture
def noise():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_truncated_images_are_named(tmp_path, noise, reader, extension, share):
    path = save(tmp_path / f"cut.{extension}", noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match=rf"cut\.{extension}' can't be read: \S"):
        reader(path)


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_what_comes_after_an_image_does_no_harm(tmp_path, noise, extension):
    path = save(tmp_path / f"long.{extension}", noise)
    path.write_bytes(path.read_bytes() + b"appended")
    verify_image(path)
    assert open_image(path).size == noise.size


@pytest.mark.parametrize("extension", ["jpg", "png", "gif"])
def test_a_whole_file_is_verified_without_reading_its_pixels(tmp_path, noise, extension):
    path = save(tmp_path / f"large.{extension}", noise.resize((600, 600)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : -20_000] = bytes(len(content) // 2 - 20_000)
    path.write_bytes(content)
    verify_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "it is not an image of a known format"),
        (bytes(4000), "it is not an image of a known format"),
        (b"<!DOCTYPE html><title>404</title>", "it is not an image of a known format"),
    ],
)
@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_no_image_at_all(tmp_path, reader, content, reason):
    (tmp_path / "fake.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"fake\.jpg' can't be read: {reason}$"):
        reader(tmp_path / "fake.jpg")


@pytest.mark.parametrize("reader", [open_image, verify_image, file_bytes])
def test_missing_file(tmp_path, reader):
    with pytest.raises(UserError, match=r"no image file '.*gone\.png'$"):
        reader(tmp_path / "gone.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"no image file '.*link\.png', which is a link to a file that is gone$"):
        reader(tmp_path / "link.png")


@pytest.mark.parametrize("reader", [open_image, verify_image, file_bytes])
def test_a_folder_is_no_image(tmp_path, reader):
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(UserError, match=r"x\.jpg' can't be read: it is a folder"):
        reader(tmp_path / "x.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("reader", [open_image, verify_image, file_bytes])
def test_a_file_that_may_not_be_read(tmp_path, noise, reader):
    save(tmp_path / "own.png", noise).chmod(0)
    with pytest.raises(UserError, match=r"own\.png' can't be read: Permission denied$"):
        reader(tmp_path / "own.png")


def with_size(path, width, height):
    """A sound PNG of one pixel whose header claims another size."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "png")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(content.getvalue()[:8] + header + content.getvalue()[8 + len(header) :])
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "pixels"), [(60_000, "3,600,000,000"), (12_000, "144,000,000")])
@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_a_decompression_bomb_is_refused(tmp_path, reader, side, pixels):
    message = rf"bomb\.png' can't be read: it claims {pixels} pixels, and more than 89,478,485 could fill the memory"
    with pytest.raises(UserError, match=message):
        reader(with_size(tmp_path / "bomb.png", side, side))


def test_who_lifts_the_limit_on_pixels_may(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(save(tmp_path / "large.png", noise)).size == noise.size
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64)
    assert open_image(tmp_path / "large.png").size == noise.size


def test_pictures_load_when_asked_and_travel_between_processes(tmp_path):
    paths = [save(tmp_path / f"{number}.png", Image.new("RGB", (1, 1), (number, 0, 0))) for number in range(5)]
    pictures = pickle.loads(pickle.dumps(LazyImages([*paths, tmp_path / "missing.png"], open_image)))
    chosen = pictures.select([3, 1])
    assert [pixel(image)[0] for image in chosen] == [3, 1]
    assert pixel(pictures[:2][1])[0] == 1 and pixel(pictures[-2])[0] == 4
    with pytest.raises(IndexError):
        chosen[2]


def test_select_from_a_plain_list():
    images = [Image.new("RGB", (1, 1), (number, 0, 0)) for number in range(3)]
    assert [pixel(image)[0] for image in pickle.loads(pickle.dumps(select(images, [2, 0])))] == [2, 0]
