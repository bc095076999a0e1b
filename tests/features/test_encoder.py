import numpy as np
import pytest
import torch
from PIL import Image

from clipadapt.adaptations.base import Adaptation
from clipadapt.data.images import LazyImages
from clipadapt.data.tasks import Split
from clipadapt.data.transforms import CentreCrop, RandomCrops
from clipadapt.errors import DataError
from clipadapt.features.cache import Store
from clipadapt.features.encoder import MICRO_BATCH, AugmentedDataset, Encoder
from clipadapt.tasks.classification import Classifier
from tests.engine.tasks import split, task

ITEMS = [(index, view) for index in range(5) for view in range(2)]
CPU = torch.device("cpu")


class FromBlock(Adaptation):
    """Changes what enters a block, so that the cut is there."""

    def edits(self, tower, image=None):
        return {"block.2": lambda x: x + 1} if tower == "image" else {}


def classifier(clip, kind=Adaptation):
    given = task()
    return Classifier(clip, kind(clip, given), given.class_names)


def views(clip, count=5, seed=3):
    return AugmentedDataset(split([index % 3 for index in range(count)]), RandomCrops(clip.preprocess), seed)


def pixels(views, items, workers=0):
    batches = [batch for batch in (items[:4], items[4:]) if batch]
    read = views.read([[index for index, _ in batch] for batch in batches], workers)
    return torch.cat([views.pixels(one, batch, CPU) for one, batch in zip(read, batches, strict=True)])


def encoder(clip, kind=Adaptation, **changes):
    return Encoder(classifier(clip, kind), workers=0, **changes)


class Counted:
    """How many images were found or encoded, call by call."""

    def __init__(self):
        self.calls = []

    @property
    def images(self):
        return sum(self.calls)

    def __call__(self, count):
        self.calls.append(count)


def test_a_view_is_the_same_whoever_asks(clip):
    random = pixels(views(clip), ITEMS)
    assert torch.equal(pixels(views(clip), ITEMS, workers=2), random)
    assert torch.equal(pixels(views(clip), ITEMS[::-1]), random.flip(0))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    pixels(views(clip), ITEMS)
    assert torch.equal(torch.get_rng_state(), before)


def test_views_differ_by_image_view_and_seed(clip):
    found = [*pixels(views(clip), ITEMS), *pixels(views(clip, seed=4), ITEMS)]
    assert all(not torch.equal(one, other) for place, one in enumerate(found) for other in found[:place])


def test_views_without_a_seed_follow_the_image_wherever_it_stands(clip):
    here = views(clip, seed=None)
    there = AugmentedDataset(here.images.select([3, 1]), here.transform)
    assert torch.equal(pixels(here, [(1, 0), (3, 1)]), pixels(there, [(1, 0), (0, 1)]))
    assert here.keys([(1, 0), (3, 1)]) == there.keys([(1, 0), (0, 1)])
    assert len({*here.keys(ITEMS)}) == len(ITEMS)


@pytest.mark.parametrize("kind", [Adaptation, FromBlock])
def test_found_equals_computed_bit_for_bit(clip, kind, tmp_path):
    model, labelled = encoder(clip, kind), views(clip, 70)
    items = [(index, view) for view in range(2) for index in range(70)]
    computed = list(model.compute(labelled, items))
    assert [len(values) for values in computed] == [MICRO_BATCH, MICRO_BATCH, 12]
    entry = Store(tmp_path, 10**9).entry(model.cache_key_fields(labelled))
    for _ in range(2):
        assert torch.equal(model.find(labelled, items, entry, shared=True).gather(range(140)), torch.cat(computed))


def test_a_value_does_not_depend_on_its_neighbours(clip):
    model = encoder(clip)
    many = torch.cat([*model.compute(views(clip, 70), [(index, 0) for index in range(70)])])
    few = next(model.compute(views(clip, 3), [(index, 0) for index in range(3)]))
    assert torch.equal(many[:3], few)


def test_only_what_is_missing_is_computed(clip, tmp_path):
    counted, labelled = Counted(), AugmentedDataset(split(range(10)), CentreCrop(clip.transform))
    model = encoder(clip, update=counted)
    entry = Store(tmp_path, 10**9).entry(model.cache_key_fields(labelled))
    first = model.find(labelled, [(i, 0) for i in (2, 5, 7)], entry, shared=True).gather([0, 1, 2])
    assert counted.images == 3
    elsewhere = AugmentedDataset(labelled.images.select([7, 9, 2]), labelled.transform)
    found = model.find(elsewhere, [(0, 0), (1, 0), (2, 0)], entry, shared=True).gather([0, 2])
    assert counted.calls == [3, 2, 1]  # encoded; found, encoded
    assert torch.equal(found, first[[2, 0]])


def test_encoding_goes_on_where_it_was_stopped(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("clipadapt.features.encoder.WRITTEN_SECONDS", 0.0)
    labelled = AugmentedDataset(split(range(150)), CentreCrop(clip.transform))
    items = [(i, 0) for i in range(150)]

    def stop(count):
        counted(count)
        if counted.images >= MICRO_BATCH:
            raise KeyboardInterrupt

    counted = Counted()
    stopped = encoder(clip, update=stop)
    entry = Store(tmp_path, 10**9).entry(stopped.cache_key_fields(labelled))
    with pytest.raises(KeyboardInterrupt):
        stopped.find(labelled, items, entry, shared=True)
    counted = Counted()
    found = encoder(clip, update=counted).find(labelled, items, entry, shared=True)
    assert counted.calls == [MICRO_BATCH, MICRO_BATCH, 150 - 2 * MICRO_BATCH]  # the first of them found
    assert torch.equal(found.gather(range(150)), torch.cat([*encoder(clip).compute(labelled, items)]))


def test_several_processes_compute_a_part_each(clip, tmp_path):
    labelled = AugmentedDataset(split(range(150)), CentreCrop(clip.transform))
    items = [(i, 0) for i in range(150)]
    counted = Counted()

    def other():  # what the second process does until the first has to wait for it
        if not counted.images:
            return
        encoder(clip, rank=1, processes=2).find(labelled, items, entry, shared=True)

    one = encoder(clip, rank=0, processes=2, update=counted, wait=other)
    entry = Store(tmp_path, 10**9).entry(one.cache_key_fields(labelled))
    found = one.find(labelled, items, entry, shared=True)
    assert counted.images == 64 + 22
    assert not found.missing


def test_what_values_depend_on_is_told_apart(clip):
    random, centre = views(clip), AugmentedDataset(split([0]), CentreCrop(clip.transform))
    facts = [
        encoder(clip).cache_key_fields(random),
        encoder(clip).cache_key_fields(centre),
        encoder(clip, FromBlock).cache_key_fields(centre),
    ]
    assert all(one != other for place, one in enumerate(facts) for other in facts[:place])


def test_content_stands_for_files_by_their_bytes_and_for_others_by_their_pixels(clip, tmp_path):
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        picture.save(file)
    loaded = []
    by_bytes = LazyImages(files, loaded.append, content=lambda path: path.read_bytes())
    assert len({*AugmentedDataset(Split(by_bytes, [0, 1]), CentreCrop(clip.transform)).contents}) == 1
    assert not loaded
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    contents = AugmentedDataset(
        Split([picture, picture.copy(), turned], [0, 0, 0]), CentreCrop(clip.transform)
    ).contents
    assert contents[0] == contents[1] != contents[2]


def unreadable(item):
    raise DataError(f"the image '{item}' can't be read")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_a_worker_process_cannot_read(clip, workers):
    broken = AugmentedDataset(Split(LazyImages(["a.png"], unreadable), [0]), CentreCrop(clip.transform))
    with pytest.raises(DataError, match=r"^the image 'a\.png' can't be read$"):
        next(broken.read([[0]], workers))


@pytest.mark.parametrize("count", [3, 70])
def test_each_image_is_read_once_for_all_of_its_views(clip, count):
    images = split([0, 1, 2])
    reads = []
    counted = Split(LazyImages(range(3), lambda index: reads.append(index) or images.images[index]), images.labels)
    items = [(index, view) for index in range(3) for view in range(count)]
    values = torch.cat(list(encoder(clip).compute(AugmentedDataset(counted, RandomCrops(clip.preprocess), 3), items)))
    assert reads == [0, 1, 2] and len(values) == 3 * count
    alone = torch.cat(
        list(encoder(clip).compute(AugmentedDataset(images, RandomCrops(clip.preprocess), 3), items[-2:]))
    )
    torch.testing.assert_close(values[-2:], alone)
