"""Image files of every kind a user's folder may hold come out as upright RGB, and damaged ones with their name."""

import pickle

import numpy as np
import pytest
from PIL import Image

from clipadapt.data.images import Pictures, faults, open_image, select, to_rgb, verify_image
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


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70000)])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode, value):
    path = save(tmp_path / "raw.tif", Image.new(mode, (4, 4), value))
    with pytest.raises(UserError, match=r"raw\.tif.*32-bit numbers of unknown range; save it with 8 or 16 bits"):
        open_image(path)


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


def test_a_damaged_exif_block_does_no_harm(tmp_path):
    path = save(tmp_path / "exif.jpg", Image.new("RGB", (8, 8), "white"), exif=b"Exif\0\0nonsense")
    assert open_image(path).size == (8, 8)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixel(open_image(path)) == (255, 0, 0)


@pytest.fixture
def noise():
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_truncated_images_are_named(tmp_path, noise, extension):
    path = save(tmp_path / f"cut.{extension}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cut\.{extension}' can't be read: \S"):
        open_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image"])
@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_no_image_at_all(tmp_path, reader, content):
    (tmp_path / "fake.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"fake\.jpg' can't be read: it is not an image of a known format$"):
        reader(tmp_path / "fake.jpg")


@pytest.mark.parametrize("reader", [open_image, verify_image])
def test_missing_file(tmp_path, reader):
    with pytest.raises(UserError, match=r"no image file '.*gone\.png'"):
        reader(tmp_path / "gone.png")


def test_faults_are_all_told_and_sound_files_are_not(tmp_path, noise):
    paths = [save(tmp_path / f"{number}.jpg", noise) for number in range(4)]
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    paths[3].write_text("no image")
    pictures = Pictures(paths, open_image, verify_image)
    assert ["1.jpg" in faults(pictures, decode=True)[0], "3.jpg" in faults(pictures, decode=True)[1]] == [True, True]
    assert len(faults(pictures, decode=False)) == 1
    assert faults(pictures[:1], decode=True) == []
    assert faults([noise], decode=True) == []


def test_pictures_load_when_asked_and_travel_between_processes(tmp_path):
    paths = [save(tmp_path / f"{number}.png", Image.new("RGB", (1, 1), (number, 0, 0))) for number in range(5)]
    pictures = pickle.loads(pickle.dumps(Pictures([*paths, tmp_path / "missing.png"], open_image)))
    chosen = pictures.select([3, 1])
    assert [pixel(image)[0] for image in chosen] == [3, 1]
    assert pixel(pictures[:2][1])[0] == 1 and pixel(pictures[-2])[0] == 4
    with pytest.raises(IndexError):
        chosen[2]


def test_select_from_a_plain_list():
    images = [Image.new("RGB", (1, 1), (number, 0, 0)) for number in range(3)]
    assert [pixel(image)[0] for image in pickle.loads(pickle.dumps(select(images, [2, 0])))] == [2, 0]
