from itertools import chain

import torch

from clipadapt.data.transforms import CentreCrop, RandomCrops
from clipadapt.features.batch_sources import AugmentedImages, InMemoryFeatures
from clipadapt.features.encoder import AugmentedDataset
from tests.engine.tasks import distance, learned, prepare, split, task

CPU = torch.device("cpu")


def fresh(clip, keep_bytes=0.0, cycle=None, images=5):
    views = AugmentedDataset(split([index % 3 for index in range(images)]), RandomCrops(clip.preprocess), 3)
    return AugmentedImages(views, torch.tensor(views.images.labels), CPU, 0, keep_bytes, cycle)


def test_kept_views_go_round():
    values = torch.randn(3, 5, 8)
    kept = InMemoryFeatures(values, torch.arange(5), "features")
    fed = [next(kept.iterate([[4, 1]], epoch))[0] for epoch in range(6)]
    assert all(torch.equal(fed[epoch], values[epoch % 3, [4, 1]]) for epoch in range(6))
    assert [labels.tolist() for _, labels in kept.iterate([[4, 1], [0]], 0)] == [[4, 1], [0]]


def test_fresh_views_are_new_every_epoch_or_go_round(clip):
    fed = [next(fresh(clip).iterate([[4, 1]], epoch))[0] for epoch in range(3)]
    assert not torch.equal(fed[0], fed[1]) and not torch.equal(fed[0], fed[2])
    round_about = fresh(clip, cycle=2)
    fed = [next(round_about.iterate([[4, 1]], epoch))[0] for epoch in range(3)]
    assert not torch.equal(fed[0], fed[1]) and torch.equal(fed[0], fed[2])


def test_what_was_read_is_kept_as_far_as_memory_permits(clip, monkeypatch):
    batches, image = [[4, 1], [0, 2, 3]], 3 * 32 * 32
    asked = []
    reading = RandomCrops.read
    monkeypatch.setattr(RandomCrops, "read", lambda self, image: asked.append(1) or reading(self, image))
    expected = [list(fresh(clip).iterate(batches, epoch)) for epoch in range(3)]
    assert len(asked) == 15
    for kept, reads in [(0, 15), (2, 5 + 3 + 3), (5, 5)]:
        asked.clear()
        source = fresh(clip, keep_bytes=kept * image)
        fed = [list(source.iterate(batches, epoch)) for epoch in range(3)]
        assert len(asked) == reads
        for found, wanted in zip(chain(*fed), chain(*expected), strict=True):
            assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])


def test_worker_processes_change_nothing(clip):
    alone, helped = fresh(clip, 1e9), fresh(clip, 1e9)
    helped.workers = 2
    for epoch in range(2):
        for one, other in zip(alone.iterate([[4, 1], [0]], epoch), helped.iterate([[4, 1], [0]], epoch), strict=True):
            assert torch.equal(one[0], other[0])


def test_in_memory_on_disk_or_neither(clip, tmp_path):
    features = 1e-6 * 4 * clip.width
    cases = [
        ({"cache": None}, True, False),
        ({"cache": str(tmp_path)}, True, True),
        ({"cache": str(tmp_path), "keep_mb": 13 * features}, False, True),
        ({"cache": str(tmp_path), "keep_mb": 14 * features}, True, True),
        ({"cache": str(tmp_path), "keep_mb": 1e-9, "cache_gb": 13e-3 * features}, False, False),
        ({"cache": None, "keep_mb": 13 * features}, False, False),
    ]
    for changes, in_memory, on_disk in cases:
        place = prepare(clip, task(views=2), **changes).placement
        assert (place.in_memory, place.on_disk) == (in_memory, on_disk), changes
    assert not prepare(clip, task(views=None), cache=str(tmp_path)).placement.anywhere


def test_where_it_is_kept_changes_nothing(clip, tmp_path):
    given = task(views=2)
    expected = learned(clip, given)
    for changes in ({"cache": str(tmp_path)}, {"cache": str(tmp_path)}, {"cache": str(tmp_path), "keep_mb": 1e-6}):
        assert distance(learned(clip, given, **changes), expected) == 0
    assert distance(learned(clip, given, keep_mb=1e-6), expected) < 1e-6


def test_a_second_run_encodes_nothing(clip, tmp_path, monkeypatch):
    run = prepare(clip, task(), cache=str(tmp_path))
    run.support()
    list(run.loader.test_batches(run.zero_shot(), run.task.tests["test"]))
    monkeypatch.setattr(CentreCrop, "read", lambda self, image: 1 / 0)
    again = prepare(clip, task(images=5), cache=str(tmp_path))
    again.support()
    assert [len(x) for x, _ in again.loader.test_batches(again.zero_shot(), again.task.tests["test"])] == [5]


def test_the_cache_stays_below_its_limit(clip, tmp_path):
    limit, sizes = 40_000, []
    for seed in range(12):
        given = task(tests={"test": split([0] * 10, seed=seed)})
        run = prepare(clip, given, cache=str(tmp_path), cache_gb=limit / 1e9)
        list(run.loader.test_batches(run.zero_shot(), given.tests["test"]))
        sizes.append(sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors")))
    assert max(sizes) <= limit
    assert sizes[0] < sizes[1] and max(sizes) > limit / 2, "it is used"
