from functools import partial

import torch

from clipadapt.adaptations.base import Adaptation
from clipadapt.adaptations.visual import Padding
from clipadapt.classifier import Classifier
from clipadapt.data.transforms import training_views
from clipadapt.engine.activations import MICRO_BATCH, Fresh, Views, encode, prefixes, size_mb
from tests.engine.tasks import distance, learned, prepare, split, task

ITEMS = [(index, view) for index in range(5) for view in range(2)]


def classifier(clip):
    given = task()
    return Classifier(clip, Adaptation(clip, given), given.class_names)


def views(clip, count=5, seed=3):
    return Views(split([index % 3 for index in range(count)]), training_views(clip.preprocess), seed)


def pixels(views, items, workers=0):
    return torch.cat([pixels for pixels, _ in views.load([items[:4], items[4:]], workers)])


def test_a_view_is_the_same_whoever_asks(clip):
    random = pixels(views(clip), ITEMS)
    assert torch.equal(pixels(views(clip), ITEMS, workers=2), random)
    assert torch.equal(pixels(views(clip), ITEMS[::-1]), random.flip(0))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(views(clip)[4, 1][0], random[-1])
    assert torch.equal(torch.get_rng_state(), before)


def test_views_differ_by_image_view_and_seed(clip):
    found = [*pixels(views(clip), ITEMS), *pixels(views(clip, seed=4), ITEMS)]
    assert all(not torch.equal(one, other) for place, one in enumerate(found) for other in found[:place])


def test_kept_equals_fresh_bit_for_bit(clip):
    labelled, model = views(clip, 70), classifier(clip)
    kept = encode(model, labelled, 70, [0, 1], workers=0)
    for view in range(2):
        fresh = list(prefixes(model, labelled, [(index, view) for index in range(70)], workers=1))
        assert [len(values) for values, _ in fresh] == [MICRO_BATCH, 6]
        assert torch.equal(kept.values[view], torch.cat([values for values, _ in fresh]))
    assert kept.labels.tolist() == labelled.images.labels
    assert kept.start == "features"


def test_a_value_does_not_depend_on_its_neighbours(clip):
    model = classifier(clip)
    many = encode(model, views(clip, 70), 70, [0], workers=0).values
    few = encode(model, views(clip, 3), 3, [0], workers=0).values
    assert torch.equal(many[:, :3], few)


def test_kept_views_go_round(clip):
    kept = encode(classifier(clip), views(clip), 5, [0, 1, 2], workers=0)
    fed = [next(kept.feed([[4, 1]], epoch))[0] for epoch in range(6)]
    assert all(torch.equal(fed[epoch], kept.values[epoch % 3, [4, 1]]) for epoch in range(6))
    assert not torch.equal(fed[0], fed[1])


def test_fresh_views_are_new_every_epoch_or_go_round(clip):
    device = torch.device("cpu")
    fed = [next(Fresh(views(clip), device, 0).feed([[4, 1]], epoch))[0] for epoch in range(3)]
    assert not torch.equal(fed[0], fed[1]) and not torch.equal(fed[0], fed[2])
    round_ = [next(Fresh(views(clip), device, 0, cycle=2).feed([[4, 1]], epoch))[0] for epoch in range(3)]
    assert torch.equal(round_[0], fed[0]) and torch.equal(round_[1], fed[1]) and torch.equal(round_[2], fed[0])


def test_what_is_too_large_is_computed_anew_with_the_same_result(clip):
    given = task(views=2)
    assert not prepare(clip, given, keep_mb=1e-6).keeps
    assert prepare(clip, given).keeps
    assert distance(learned(clip, given), learned(clip, given, keep_mb=1e-6)) < 1e-6


def test_size_is_that_of_what_is_kept(clip):
    given = task()
    padded = Classifier(clip, Padding(clip, given), given.class_names)
    assert size_mb(padded, 5, 2) == 2 * 5 * 3 * 32 * 32 * 4 / 1e6
    kept = encode(classifier(clip), views(clip), 5, [0, 1], workers=0).values
    assert size_mb(classifier(clip), 5, 2) == kept.numel() * 4 / 1e6


def test_worker_processes_change_nothing(clip):
    found = [learned(clip, task(views=None), partial(Padding, size=4), workers=workers) for workers in (0, 2)]
    assert distance(*found) == 0
