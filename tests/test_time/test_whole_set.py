"""What sees all test images together: what golden records don't show."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt import graphs as module
from clipadapt.adaptations import ZeroShot
from clipadapt.errors import UserError
from clipadapt.graphs import NearestImages
from clipadapt.interfaces import LabelledFeatures
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time import AnchoredMixture, GaussianMixture, LabelledMixture, LabelPropagation
from clipadapt.test_time.mixture import log_likelihoods, scatter
from clipadapt.test_time.whole_set import LabelledGraph
from tests.small import CLASS_NAMES, TASK, TEMPLATES, adaptation, close, golden, images

METHODS = {"mixture": GaussianMixture, "anchored": AnchoredMixture, "propagation": LabelPropagation}
EACH = pytest.mark.parametrize("make", [*METHODS.values(), LabelledMixture], ids=[*METHODS, "labelled"])


def unit(count, seed=0, width=64):
    return functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def labelled(search=True):
    built = adaptation("labelled_images", f"method.adaptation.search={str(search).lower()}")
    image = torch.randn(1, 30, 64, generator=torch.Generator().manual_seed(3))
    validation = LabelledFeatures(image, torch.arange(30) % 5)
    built.fit_closed_form(SimpleNamespace(support=TASK.support, validation=validation))
    return built, validation


def answers(make, features, text=None, **changes):
    own = labelled()[0] if make is LabelledMixture else adaptation("zero_shot")
    classifier = Classifier(golden(), own, CLASS_NAMES)
    text = classifier.class_embeddings().detach() if text is None else text
    return make(**changes).set_logits(classifier, features, text)


@EACH
@torch.no_grad()
def test_answers_follow_their_images_in_any_order(make):
    features, order = unit(30), torch.randperm(30, generator=torch.Generator().manual_seed(1))
    own = {"own_rows": True} if make is LabelledMixture else {}  # rows of others depend on the order
    found, expected = answers(make, features[order], **own), answers(make, features, **own)[order]
    close(found.softmax(dim=-1), expected.softmax(dim=-1), 1e-3)


@EACH
@torch.no_grad()
def test_few_images_or_equal_ones(make):
    for features in (unit(2), unit(1).repeat(5, 1), unit(3)):
        found = answers(make, features)
        assert found.shape == (len(features), 5) and found.isfinite().all()
    with pytest.raises(UserError, match="compares the images of a whole set, at least 2 of them"):
        answers(make, unit(1))


@EACH
@pytest.mark.parametrize("name", ["linear_probe", "feature_cache", "conditional_context", "transport_context"])
def test_logits_of_another_kind_are_refused(make, name):
    with pytest.raises(UserError, match="this adaptation has logits of its own"):
        make().check(adaptation(name))


@torch.no_grad()
def test_batches_are_answered_together():
    classifier, method = Classifier(golden(), adaptation("zero_shot"), CLASS_NAMES), GaussianMixture()
    x, text = classifier.prefix(images(10))[:, None], classifier.class_embeddings()
    targets = torch.arange(10)
    found = [*method.answer(classifier, zip(x.split(4), targets.split(4), strict=True), text)]
    assert [len(logits) for logits, _ in found] == [4, 4, 2]
    close(torch.cat([logits for logits, _ in found]), method.logits(classifier, x, text))
    assert torch.cat([some for _, some in found]).tolist() == targets.tolist()


@torch.no_grad()
def test_some_of_the_classes_that_were_learned():
    own, _ = labelled()
    whole, some = (Classifier(golden(), own, names) for names in (CLASS_NAMES, CLASS_NAMES[3:0:-1]))
    text = whole.class_embeddings()
    close(
        LabelledMixture().set_logits(some, unit(20), text).softmax(dim=-1),
        LabelledMixture().set_logits(whole, unit(20), text)[:, [3, 2, 1]].softmax(dim=-1),
    )


def test_nearest_images_are_exact_in_chunks(monkeypatch):
    rows, other = unit(23, 1), unit(17, 2)
    monkeypatch.setattr(module, "MOST_PRODUCTS", 40)
    graph, z, back = NearestImages.find(rows, other, 4, skip=1), torch.randn(17, 3), torch.randn(23, 3)
    values, indices = (rows @ other.T).sort(dim=-1, descending=True)
    dense = torch.zeros(23, 17).scatter(1, indices[:, 1:5], values[:, 1:5])
    close(graph.to_rows(z), dense @ z)
    close(graph.to_images(back), dense.T @ back)
    assert NearestImages.find(rows, other, 40, skip=1).values.shape == (23, 16)


def test_rows_of_a_graph_with_labelled_images():
    labels, z = functional.one_hot(torch.arange(6) % 3, 3).float(), torch.rand(10, 3)
    edges = NearestImages.find(torch.cat([unit(6, 1), unit(10, 2)]), unit(10, 2), 3, skip=1)
    dense = edges.to_images(torch.eye(16)).T
    close(LabelledGraph(edges, labels, True).near(z), dense.T @ torch.cat([labels, z]) + (dense @ z)[6:])
    close(LabelledGraph(edges, labels, False).near(z), dense.T @ torch.cat([z, labels]) + (dense @ z)[:10])
    assert not torch.equal(answers(LabelledMixture, unit(20)), answers(LabelledMixture, unit(20), own_rows=True))


def test_the_weight_of_support_images_is_their_gamma_whatever_the_temperature():
    z, support, labels = (
        torch.rand(20, 5).softmax(dim=-1),
        unit(10, 1),
        functional.one_hot(torch.arange(10) % 5).float(),
    )
    means = [LabelledMixture(temperature=t).update(unit(20), z, support, labels, 0.02)[0] for t in (50.0, 5.0)]
    close(means[0], functional.normalize(z.T @ unit(20) / 20 + labels.T @ support / 10, dim=-1))  # 50 * 0.02 is 1
    close(*means)


@pytest.mark.parametrize("each", [True, False], ids=["of each class", "of all"])
def test_likelihoods_and_scatter_as_they_are_written(each):
    """Also where features lie far from the origin, as CLIP's do."""
    features, means, z = 5 + 0.1 * unit(20), 5 + 0.1 * unit(4, 1), torch.rand(20, 4)
    variance = torch.rand(4, 64) + 0.1 if each else torch.rand(64) + 0.1
    squared = (features[:, None] - means).square()
    close(log_likelihoods(features, means, variance), -(squared / variance).sum(dim=-1) / 2, 1e-4)
    close(scatter(features, z, means), torch.einsum("nc,ncd->cd", z, squared), 1e-4)


def test_labels_spread_as_a_dense_solve_says():
    features, text, method = unit(40), unit(5, 1), LabelPropagation(alpha=0.7)
    laplacian = torch.from_numpy(method.graph(features, text).laplacian().toarray())
    close(method.scores(features, text), laplacian.inverse()[5:, :5].float(), 1e-4)
    scaled = LabelPropagation(scale_similarities=True).graph(features, text).weights
    assert scaled.min() >= 0 and scaled.max() <= 1 + 1e-9


def test_a_class_without_images_stays_at_its_text():
    text, features = unit(5, 1), functional.normalize(unit(5, 1)[:4].repeat(10, 1) + 0.05 * unit(40), dim=-1)
    *_, last = AnchoredMixture().steps(features, text, adaptation("zero_shot"))
    assert last.weight.tolist() == pytest.approx([10 / 11] * 4 + [0])
    close(last.means[4], text[4])


def test_labelled_images_are_kept_up_to_four_validation_images_of_a_class():
    built, validation = labelled()
    close(built.support, functional.normalize(TASK.support.image.mean(dim=0), dim=-1))
    assert built.validation_labels.tolist() == [n % 5 for n in range(20)]
    close(built.validation, functional.normalize(validation.image[0, :20], dim=-1))
    few = LabelledFeatures(validation.image[:, :3], torch.tensor([0, 0, 4]))
    built.validation_labels.fill_(-1)
    built.fit_closed_form(SimpleNamespace(support=TASK.support, validation=few))
    assert built.validation_labels.tolist() == [0, 0, 4] + [-1] * 17
    assert built.logits(unit(2), unit(5, 1), 10.0).shape == (2, 5)


@torch.no_grad()
def test_weights_go_on_from_each_other_and_the_first_best_is_taken():
    own, _ = labelled()
    features, text = unit(40), Classifier(golden(), own, CLASS_NAMES).class_embeddings()
    method = LabelledMixture(gammas=[0.01, 0.2], iterations=3)
    ends = [*method.ends(features, text, own)]
    assert len(ends) == 2 and len([*method.steps(features, text, own)]) == 9
    scores = [method.accuracy(features, state, own) for state in ends]
    best = scores.index(max(scores))
    assert method.best(features, text, own)[0] == method.gammas[best]
    assert torch.equal(method.compute_logits(features, text, own), ends[best].logs)


def test_a_single_weight_needs_no_validation_images():
    own, _ = labelled(search=False)
    LabelledMixture(gammas=[0.1]).check(own)
    with pytest.raises(UserError, match=r"no validation images to choose one of gammas=\[0.1, 0.2\] by: give one"):
        LabelledMixture(gammas=[0.1, 0.2]).check(own)
    with pytest.raises(UserError, match="needs the features of labelled images, which this adaptation doesn't keep"):
        LabelledMixture().check(adaptation("zero_shot"))


def test_of_several_templates_the_first_counts():
    assert adaptation("first_template").prompts(["owl"]) == [[TEMPLATES[0].replace("{}", "owl")]]
    assert isinstance(adaptation("first_template"), ZeroShot)
