"""Random training views are CoOp's."""

import pytest
import torch
from PIL import Image

from clipadapt.data.transforms import training_views

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]


def views_of(size):
    return training_views({"size": size, "mean": MEAN, "std": STD, "interpolation": "bicubic"})


@pytest.mark.parametrize(("size", "shape"), [(32, (3, 32, 32)), ((24, 40), (3, 24, 40))])
def test_size_and_normalisation(size, shape):
    view = views_of(size)(Image.new("RGB", (50, 30), (255, 0, 51)))
    assert view.shape == shape
    expected = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(view, expected.view(3, 1, 1).expand(shape))


def test_views_follow_the_seed_and_are_mirrored_half_the_time():
    image = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90).convert("RGB")  # brighter to one side
    transform = views_of(16)
    torch.manual_seed(0)
    views = torch.stack([transform(image) for _ in range(200)])
    torch.manual_seed(0)
    torch.testing.assert_close(torch.stack([transform(image) for _ in range(200)]), views, rtol=0, atol=0)
    mirrored = (views[..., 0] > views[..., -1]).flatten(1).all(dim=1).float().mean()
    assert 0.35 < mirrored < 0.65
