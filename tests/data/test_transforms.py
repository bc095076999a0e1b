"""Random training views are CoOp's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from clipadapt.data.transforms import CentreCrop, RandomCrops

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]
CPU = torch.device("cpu")


def crops_of(size, interpolation="bicubic"):
    return RandomCrops({"size": size, "mean": MEAN, "std": STD, "interpolation": interpolation})


def views(transform, image, seeds):
    return transform.pixels([transform.read(image)] * len(seeds), seeds, CPU)


@pytest.mark.parametrize(("size", "shape"), [(32, (2, 3, 32, 32)), ((24, 40), (2, 3, 24, 40))])
def test_size_and_normalisation(size, shape):
    found = views(crops_of(size), Image.new("RGB", (50, 30), (255, 0, 51)), [0, 1])
    assert found.shape == shape
    expected = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(found, expected.view(3, 1, 1).expand(shape))


def test_views_follow_the_seed_and_are_mirrored_half_the_time():
    image = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90).convert("RGB")  # brighter to one side
    found = views(crops_of(16), image, range(200))
    assert torch.equal(views(crops_of(16), image, range(200)), found)
    mirrored = (found[..., 0] > found[..., -1]).flatten(1).all(dim=1).float().mean()
    assert 0.35 < mirrored < 0.65


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 2), ("bicubic", 6)])
def test_they_are_pillows_views_up_to_rounding(interpolation, most):
    """CoOp's authors crop with Pillow, whose two passes round to 8 bits each, and clip where bicubic overshoots."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
    pillow = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                64, scale=(0.08, 1.0), interpolation=transforms.InterpolationMode(interpolation)
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    expected = []
    for seed in range(20):
        torch.manual_seed(seed)
        expected.append(pillow(image))
    difference = (views(crops_of(64, interpolation), image, range(20)) - torch.stack(expected)) * torch.tensor(
        STD
    ).view(3, 1, 1)
    assert difference.abs().max() <= most / 255
    assert difference.abs().mean() <= 0.5 / 255


def test_the_centre_crop_is_the_transform():
    transform = transforms.Compose([transforms.CenterCrop(8), transforms.ToTensor()])
    image = Image.linear_gradient("L").convert("RGB")
    assert torch.equal(views(CentreCrop(transform), image, [0, 1]), torch.stack([transform(image)] * 2))


@pytest.mark.gpu
def test_views_are_the_same_on_the_gpu():
    transform, image = crops_of(64), Image.linear_gradient("L").convert("RGB")
    read = [transform.read(image)] * 8
    here, there = (transform.pixels(read, range(8), torch.device(name)) for name in ("cpu", "cuda"))
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)


def test_threads_draw_the_views_of_their_seeds():
    image, crops = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), crops_of(32)
    alone = [views(crops, image, [seed, seed + 1, seed + 2]) for seed in range(32)]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda seed: views(crops, image, [seed, seed + 1, seed + 2]), range(32))
        assert all(map(torch.equal, alone, together))
