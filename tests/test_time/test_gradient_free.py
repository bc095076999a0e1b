"""What looks at views without following a gradient."""

from collections import Counter

import pytest
import torch
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import Cache, Caches, MeanShift, NegativeCache, Voting
from clipadapt.test_time.views import ViewSummary, entropy, most_confident
from tests.small import CLASS_NAMES, adaptation, close, golden, images

METHODS = {
    "mean shift": lambda: MeanShift(),
    "voting": lambda: Voting(selection=0.5),
    "stream": lambda: Caches(Cache(), NegativeCache(), selection=0.3),
}
EACH = pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)


def classifier_of(name="zero_shot", *overrides):
    return Classifier(golden(), adaptation(name, *overrides), CLASS_NAMES)


def views(classifier, count=4, of_each=8):
    return classifier.prefix(images(count * of_each).unflatten(0, (count, of_each)))


@EACH
@torch.no_grad()
def test_images_together_are_images_apart(make):
    classifier, method = classifier_of(), make()
    x, text = views(classifier), classifier.class_embeddings()
    together = method.logits(classifier, x, text)
    method.reset()
    apart = torch.cat([method.logits(classifier, image[None], text) for image in x])
    close(together.softmax(dim=-1), apart.softmax(dim=-1))


@EACH
@torch.no_grad()
def test_under_autocast_and_with_other_adaptations(make):
    for classifier in (classifier_of("conditional_context"), classifier_of("pixel_frame")):
        text = None if classifier.adaptation.capabilities.conditional else classifier.class_embeddings()
        with torch.autocast("cpu", torch.bfloat16):
            found = make().logits(classifier, views(classifier), text)
        assert found.shape == (4, 5) and found.dtype == torch.float32
        assert found.softmax(dim=-1).isfinite().all()


@pytest.mark.parametrize("make", [METHODS["mean shift"], METHODS["stream"]])
def test_several_features_of_an_image_are_refused(make):
    classifier = classifier_of("transport_context")
    with pytest.raises(UserError, match="several features of an image, as of its patches"):
        make().logits(classifier, views(classifier), classifier.class_embeddings())


def test_views_that_are_all_the_same():
    classifier = classifier_of()
    x = classifier.prefix(images(1)).expand(6, -1)[None]
    found = MeanShift().logits(classifier, x, classifier.class_embeddings())
    close(found, classifier(images(1)))


def test_few_views_leave_one_at_least():
    assert most_confident(torch.randn(2, 5, 3), 0.1).shape == (2, 1)


def voted(logits, selection):
    """The class that wins and whether there was a tie, view by view."""
    order = entropy(logits).argsort().tolist()
    count = max(1, int(len(order) * selection))
    predicted = logits.argmax(dim=-1).tolist()
    votes = Counter(predicted[view] for view in order[:count])
    tied = [label for label, number in votes.items() if number == max(votes.values())]
    return next(predicted[view] for view in order[count:] + order[:count] if predicted[view] in tied), len(tied) > 1


def test_ties_are_broken():
    logits = 3 * torch.randn(200, 8, 4, generator=torch.Generator().manual_seed(0))
    voting = Voting(selection=0.5)
    expected = [voted(one, 0.5) for one in logits]
    decided, votes = voting.decide(logits), voting.votes(logits)
    assert decided.argmax(dim=-1).tolist() == [label for label, _ in expected]
    assert ((decided - votes).sum(dim=-1) == 1).tolist() == [tie for _, tie in expected]
    assert 20 < sum(tie for _, tie in expected) < 180


def test_a_tie_that_no_other_view_breaks():
    """The classes of both voters are predicted by nobody else; class 0, which nobody voted for, must not win."""
    logits = torch.tensor([[[0, 9, 0, 0], [0, 0, 8.0, 0], [2, 0, 0, 0], [2, 0, 0, 0]]])
    assert Voting(selection=0.5).decide(logits).tolist() == [[0, 2, 1, 0]]


def stream(**changes):
    return Caches(Cache(**changes), NegativeCache(), selection=0.3)


@torch.no_grad()
def test_a_stream_goes_on_from_its_state():
    classifier = classifier_of()
    x, text = views(classifier, 12, 1), classifier.class_embeddings()
    whole = stream()
    expected = whole.logits(classifier, x, text)
    first, second = stream(), stream()
    halves = [first.logits(classifier, x[:7], text)]
    second.load_state_dict(first.state_dict())
    first.logits(classifier, x, text)  # leaves the copy alone
    halves.append(second.logits(classifier, x[7:], text))
    close(torch.cat(halves), expected)
    assert not torch.equal(expected, classifier(images(12)))
    left = whole.state_dict()
    assert left.keys() == second.state_dict().keys() and int(left["count"]) == 12
    assert all(torch.equal(left[name], value) for name, value in second.state_dict().items())
    whole.reset()
    close(whole.logits(classifier, x, text), expected)


def test_a_state_of_other_caches_is_refused():
    classifier = classifier_of()
    given = stream()
    given.logits(classifier, views(classifier, 3, 1), classifier.class_embeddings())
    with pytest.raises(UserError, match="cache of 3 images a class, and this one has 5"):
        stream(capacity=5).load_state_dict(given.state_dict())


def test_caches_of_nothing_leave_the_logits():
    classifier = classifier_of()
    nothing = Caches(Cache(capacity=0), NegativeCache(capacity=0))
    close(nothing.logits(classifier, views(classifier, 4, 1), classifier.class_embeddings()), classifier(images(4)))
    assert [*nothing.state_dict()] == ["count"]


def test_the_most_confident_images_of_a_class_stay():
    cache, feature = Cache(capacity=2), functional.normalize(torch.ones(3), dim=0)
    for position, sureness in enumerate([1.0, 3.0, 2.0, 0.5]):
        logits = torch.tensor([sureness, 0.0])
        cache.logits(ViewSummary(feature, logits, logits.softmax(dim=-1), entropy(logits)), position)
    assert cache.entries["position"].tolist() == [[1, 2], [-1, -1]]
