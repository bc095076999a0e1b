"""Each of ImageNet-C's corruptions that moves pixels or adds weather, against its formula worked out another way."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from clipadapt.data.corruptions import CORRUPTIONS
from clipadapt.data.corruptions.blur import add_trail, defocus_blur, draw_neighbours, glass_blur, motion_blur
from clipadapt.data.corruptions.digital import elastic_transform, smooth_fields
from clipadapt.data.corruptions.weather import fog, plasma, snow

GREY = Image.new("RGB", (224, 224), (128, 128, 128))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))


def random(seed=0):
    return np.random.default_rng(seed)


def pixels(image):
    return np.asarray(image).astype(float)


def point(side):
    """A white pixel in the middle of black ones."""
    image = Image.new("RGB", (side, side))
    image.putpixel((side // 2, side // 2), (255, 255, 255))
    return image


def ramp(side):
    """Grey that rises from left to right, from 0 to 223."""
    levels = np.broadcast_to(np.arange(side) * (224 // side), (side, side))
    return Image.fromarray(np.stack([levels] * 3, axis=-1).astype(np.uint8))


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "elastic_transform"]
)
def test_one_colour_stays_as_it_is(name):
    apply, values = CORRUPTIONS[name]
    assert all(apply(GREY, value, random()).getextrema() == ((128, 128),) * 3 for value in values)


def test_out_of_focus_a_point_is_a_disk():
    found = pixels(defocus_blur(point(224), (3, 0.1), random()))[..., 0]
    disk = [(y, x) for y in range(-3, 4) for x in range(-3, 4) if y * y + x * x <= 9]
    expected = np.zeros((224, 224))
    for y, x in disk:
        expected[112 + y, 112 + x] = round(255 / len(disk))
    assert len(disk) == 29 and (found == expected).all()


def test_in_an_image_of_half_the_side_the_disk_has_half_the_radius():
    rows, columns = np.nonzero(pixels(defocus_blur(point(112), (6, 0.1), random()))[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (53, 59, 53, 59)


def test_behind_glass_pixels_are_overwritten_one_after_another():
    height, width, reach = 14, 11, 3
    inner = [(y, x) for y in range(reach + 1, height - reach + 1) for x in range(reach + 1, width - reach + 1)]
    steps = dict(zip(inner, random().integers(-reach, reach, (2, len(inner))).T, strict=True))
    values = np.arange(height * width).reshape(height, width)
    for y, x in reversed(inner):
        values[y, x] = values[y + steps[y, x][0], x + steps[y, x][1]]
    found = draw_neighbours((height, width), reach, 1.0, random())
    assert (found == values.ravel()).all() and (found != np.arange(height * width)).any()


def test_glass_blurs_before_and_after():
    still = ndimage.gaussian_filter(pixels(NOISE), (math.sqrt(2) * 1.5, math.sqrt(2) * 1.5, 0), mode="nearest")
    found = pixels(glass_blur(NOISE, (1.5, 4, 0), random()))
    assert found[10:-10, 10:-10] == pytest.approx(still[10:-10, 10:-10], abs=1)


@pytest.mark.parametrize("angle", [-45, -20, 0, 33, 90])
def test_in_motion_a_point_is_a_line_at_the_angle(angle):
    radius, deviation = 6, 3
    picture = np.zeros((41, 41, 1), dtype=np.float32)
    picture[20, 20] = 1
    expected = np.zeros((41, 41))
    for step in range(2 * radius + 1):
        down, right = (
            math.ceil(step * part - 0.5) for part in (math.sin(math.radians(angle)), math.cos(math.radians(angle)))
        )
        expected[20 - down, 20 - right] += math.exp(-(step**2) / (2 * deviation**2))
    found = add_trail(picture, radius, deviation, angle, 1.0)[..., 0]
    assert found == pytest.approx(expected / expected.sum(), abs=1e-6)
    half = add_trail(picture, radius, deviation, angle, 0.5)[..., 0]
    middle = ndimage.center_of_mass(half), ndimage.center_of_mass(expected)
    assert np.subtract(middle[0], 20) == pytest.approx(np.subtract(middle[1], 20) / 2, abs=1e-4)


def test_motion_is_within_45_degrees_of_the_horizontal():
    for seed in range(20):
        rows, columns = np.nonzero(pixels(motion_blur(point(224), (10, 3), random(seed)))[..., 0])
        assert columns.min() < 112 == columns.max() and np.ptp(rows) <= np.ptp(columns)


def enlarged(picture, factor):
    """The middle of a square picture at its size, by SciPy."""
    side = len(picture)
    kept = math.ceil(side / factor)
    start = (side - kept) // 2
    large = ndimage.zoom(picture[start : start + kept, start : start + kept], (factor, factor, 1), order=1)
    cut = (len(large) - side) // 2
    return large[cut : cut + side, cut : cut + side]


@pytest.mark.parametrize(
    ("severity", "magnifications"),
    [
        (1, np.arange(1, 1.115, 0.01)),
        (2, np.arange(1, 1.155, 0.01)),
        (3, np.arange(1, 1.21, 0.02)),
        (5, np.arange(1, 1.31, 0.03)),
    ],
)
def test_zoom_blur_is_a_mean_of_magnifications(severity, magnifications):
    clean = pixels(NOISE)
    expected = (clean + sum(enlarged(clean, factor) for factor in magnifications)) / (len(magnifications) + 1)
    apply, values = CORRUPTIONS["zoom_blur"]
    assert pixels(apply(NOISE, values[severity - 1], random())) == pytest.approx(expected, abs=1.01)


def test_snow_brightens_every_pixel():
    apply, values = CORRUPTIONS["snow"]
    for value in values:
        added = pixels(apply(NOISE, value, random())) - pixels(NOISE)
        assert added.min() >= 0 and added.mean() > 20


def test_under_snow_without_flakes_an_image_is_paler():
    colour = Image.new("RGB", (224, 224), (200, 60, 20))
    paler = 1.5 * (0.299 * 200 + 0.587 * 60 + 0.114 * 20) + 127.5
    found = snow(colour, (0.1, 0.3, 3, 9, 10, 4, 0.7), random()).getpixel((0, 0))
    assert found == pytest.approx([0.7 * value + 0.3 * max(value, paler) for value in (200, 60, 20)], abs=1)


def test_flakes_are_magnified_noise_with_a_trail_in_two_directions():
    mean, deviation, size, threshold = 0.1, 0.3, 3, 0.5
    layer = enlarged(random().normal(mean, deviation, (224, 224))[..., None], size)
    flakes = np.where(layer < threshold, 0, layer.clip(0, 1))
    found = pixels(snow(Image.new("RGB", (224, 224)), (mean, deviation, size, threshold, 0, 1, 1.0), random()))
    assert found[..., 0] == pytest.approx(255 * (flakes + flakes[::-1, ::-1]).clip(0, 1)[..., 0], abs=1)


def test_plasma_is_diamonds_and_squares():
    side, fading, draws = 8, 1.5, random()
    heights, step, amplitude = np.zeros((side, side)), side, 1.0
    while step > 1:
        half, places = step // 2, range(0, side, step)
        drawn = amplitude * draws.uniform(-1, 1, (len(places), len(places)))
        for y, x in np.ndindex(drawn.shape):
            corners = [heights[(y + b) * step % side, (x + a) * step % side] for b in (0, 1) for a in (0, 1)]
            heights[y * step + half, x * step + half] = np.mean(corners) + drawn[y, x]
        for down, right in ((0, half), (half, 0)):
            drawn = amplitude * draws.uniform(-1, 1, (len(places), len(places)))
            for y, x in np.ndindex(drawn.shape):
                row, column = y * step + down, x * step + right
                around = [(row - half, column), (row + half, column), (row, column - half), (row, column + half)]
                heights[row, column] = np.mean([heights[a % side, b % side] for a, b in around]) + drawn[y, x]
        step, amplitude = half, amplitude / fading**2
    heights -= heights.min()
    assert plasma(5, fading, random()) == pytest.approx(heights / heights.max())


@pytest.mark.parametrize("side", [224, 48])
def test_fog_has_the_clouds_mean_brightness(side):
    grey = Image.new("RGB", (side, side), (102, 102, 102))
    clouds = plasma(side, 2, random())[:side, :side]
    found = pixels(fog(grey, (1.5, 2), random()))
    assert found.mean() == pytest.approx(255 * (0.4 + 1.5 * clouds.mean()) * 0.4 / (0.4 + 1.5), abs=0.5)
    assert found.max() <= 102 and fog(Image.new("RGB", (side, side)), (3, 2), random()).getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("deviation", [2.44, 19.52])
def test_displacements_are_smoothed_by_a_gaussian(deviation):
    fields = random().uniform(-1, 1, (2, 60, 80))
    expected = [ndimage.gaussian_filter(field, deviation, mode="reflect", truncate=8) for field in fields]
    assert smooth_fields(fields, deviation) == pytest.approx(np.stack(expected), abs=1e-6)


@pytest.mark.parametrize("side", [224, 112])
def test_displacements_are_as_large_for_any_size_of_image(side):
    moved = pixels(elastic_transform(ramp(side), (29.28, 2.44, 0), random())) - pixels(ramp(side))
    expected = 29.28 / math.sqrt(3) / (2 * math.sqrt(math.pi) * 2.44)  # of uniform noise after a Gaussian
    assert moved[20:-20, 20:-20].std() == pytest.approx(expected, rel=0.1)


def test_corners_are_shifted_by_an_affine_map():
    found = pixels(elastic_transform(ramp(224), (0, 1, 24.4), random(1)))[80:144, 80:144, 0]
    rows, columns = np.indices(found.shape)
    plane = np.stack([rows.ravel(), columns.ravel(), np.ones(found.size)], axis=1)
    slopes, residuals, *_ = np.linalg.lstsq(plane, found.ravel())
    assert residuals[0] / found.size < 0.2 and np.abs(slopes[:2] - [0, 1]).max() > 0.02
    unshifted = elastic_transform(NOISE, (0, 1, 0), random())
    assert pixels(unshifted) == pytest.approx(pixels(NOISE), abs=1)
