"""Teachers see the very crops that the student learns from, each at its own size and normalisation."""

from functools import partial

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional

from clipadapt.adaptations.tokens import ImageTokens
from clipadapt.backbone.open_clip import CLIP, build
from clipadapt.data.tasks import Split
from clipadapt.data.transforms import CentreCrop, RandomCrops
from clipadapt.engine.fit import TrainState
from clipadapt.features.batch_sources import AugmentedImages
from clipadapt.features.teachers import WithTeacherFeatures
from clipadapt.objectives import Distillation
from clipadapt.runs.plan import plan
from tests.engine.tasks import CONTEXT, FEATURES, prepare, same, task
from tests.golden import tiny_clip

SMOOTH = [Image.radial_gradient("L").resize((90 + 10 * i, 70)).convert("RGB") for i in range(6)]
TINY = {"name": "tiny", "pretrained": "embedded"}


@pytest.fixture(scope="module")
def large():
    """A teacher that reads larger images, with another mean and deviation."""
    config = tiny_clip.open_clip_config()
    config["vision_cfg"]["image_size"] = 48
    torch.manual_seed(0)
    clip = CLIP(
        build(config, None),
        open_clip.SimpleTokenizer(),
        {"name": "large", "pretrained": None, "seed": 0},
    )
    clip.preprocess |= {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    return clip


def smooth(views):
    given = task(views=views)
    return type(given)(**vars(given) | {"support": Split(SMOOTH, [0, 1, 2, 0, 1, 2])})


def plain(pixels, clip):
    """Pixels as they were before they were normalised."""
    mean, std = (torch.tensor(clip.preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
    return pixels * std + mean


def watched(monkeypatch, run, teachers, epochs=2):
    """Per epoch, pixels that each backbone made of the batches, and what the feed gave."""
    seen = {}
    for kind in (RandomCrops, CentreCrop):
        making = kind.pixels

        def note(self, images, seeds, device, making=making):
            pixels = making(self, images, seeds, device)
            seen.setdefault(pixels.shape[-1], []).append(pixels)
            return pixels

        monkeypatch.setattr(kind, "pixels", note)
    source = run.support(teachers)
    fed = [[*source.iterate([[3, 0], [5]], epoch)] for epoch in range(epochs)]
    return source, seen, fed


@pytest.mark.parametrize("views", [None, 2])
def test_the_same_crops_at_another_size_and_normalisation(clip, large, monkeypatch, views):
    run = prepare(clip, smooth(views), CONTEXT)
    _, seen, _ = watched(monkeypatch, run, [large])
    ours, theirs = (torch.cat([plain(x, one) for x in seen[size]]) for one, size in ((clip, 32), (large, 48)))
    assert len(ours) == len(theirs) >= 6
    shrunk = functional.interpolate(theirs, 32, mode="bicubic", antialias=True)
    assert (shrunk - ours).abs().max() < 0.05
    assert min((one - other).abs().max() for i, one in enumerate(ours) for other in ours[:i]) > 0.05


def test_the_same_crops_pixel_by_pixel_where_only_the_normalisation_differs(clip, monkeypatch):
    other = CLIP.load("tiny", "embedded")
    other.preprocess |= {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    _, seen, fed = watched(monkeypatch, prepare(clip, smooth(None), CONTEXT), [other])
    ours, theirs = seen[32][0::2], seen[32][1::2]
    assert all((plain(x, clip) - plain(y, other)).abs().max() < 1e-5 for x, y in zip(ours, theirs, strict=True))
    expected = [other.image.run(x) for x in theirs]
    assert all(torch.equal(x[2], y) for x, y in zip(fed[0] + fed[1], expected, strict=True))


@pytest.mark.parametrize("make", [CONTEXT, partial(ImageTokens, n_tokens=2)], ids=["features", "patches"])
@pytest.mark.parametrize("views", [0, 2, None])
def test_what_a_teacher_gets_is_its_features_of_what_the_student_gets(clip, make, views):
    run = prepare(clip, smooth(views), make)
    source = run.support([clip])
    assert isinstance(source, AugmentedImages if views is None else WithTeacherFeatures)
    for epoch in range(3):
        for x, labels, features in source.iterate([[3, 0], [5]], epoch):
            assert len(x) == len(labels) == len(features)
            at_cut = run.head.prefix(x) if source.start == "pixels" != run.head.image_cut else x
            assert (run.head.frozen_features(at_cut) - features).abs().max() < 1e-5


@pytest.mark.parametrize("views", [2, None])
def test_other_views_for_the_teacher(clip, views):
    run = prepare(clip, smooth(views), partial(ImageTokens, n_tokens=2))
    same, other, again = (run.support([clip], others) for others in (False, True, True))
    seen = []
    for epoch in range(2):
        batches = [next(source.iterate([[3, 0]], epoch)) for source in (same, other, again)]
        (x, _, own), (y, _, other_own), (_, _, repeated) = batches
        assert torch.equal(x, y) and torch.equal(other_own, repeated)
        seen += [own, other_own]
    assert min((one - two).abs().max() for i, one in enumerate(seen) for two in seen[:i]) > 1e-3


def test_no_teacher_changes_nothing(clip):
    given = task(views=None)
    assert len(next(prepare(clip, given).support().iterate([[0]], 0))) == 2


@pytest.mark.parametrize("views", [0, None])
def test_the_plan_tells_of_teachers(clip, large, views):
    told = plan(prepare(clip, task(views=views)), [large])
    said = "image tower of teacher large, without gradients" if views is None else "features of teacher large"
    assert said in (told.every_step if views is None else told.kept)
    assert said not in (told.kept if views is None else told.every_step)


@pytest.mark.parametrize("views", [0, None])
def test_a_student_comes_nearer_to_its_teachers(clip, large, views):
    states = []
    for _ in range(2):
        run = prepare(clip, smooth(views), FEATURES, epochs=8)
        objective = Distillation(run.clip, run.known, [TINY, {"name": "large", "pretrained": None}], weight=10.0)
        objective.use_teachers([clip, large])
        done = run.fit(objective, run.support(objective.teachers), TrainState(), lambda progress: None)
        losses = [row["loss"] for row in done.history]
        assert min(losses[1:]) < losses[0]
        states.append(run.head.adaptation.state_dict())
    assert same(*states)
