import pytest
import torch

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.tuning import PromptTuning, ReliabilityTuning, WeightedEntropyTuning
from tests.small import CLASS_NAMES, adaptation, close, golden, images

WORDS = "method.adaptation.words=a photo of a"
CASES = {
    "shared": ["context", WORDS],
    "class-specific": ["context", "method.adaptation.class_specific=true", "method.adaptation.n_ctx=2"],
    "prototypes": ["prototype_shift", "method.adaptation.scale=true"],
    "shared by prototypes": ["prototype_shift", "method.adaptation.per_class=false"],
    "one by one": ["deep_context"],
    "of the image tower": ["pixel_frame"],
    "of the features": ["feature_adapter"],
    "conditional": ["conditional_context"],
}
TUNING = PromptTuning(selection=0.5, steps=2, dispersion_weight=2)
TUNINGS = {
    "selected anew": PromptTuning(selection=0.5, steps=2, select_every_step=True),
    "of all views": WeightedEntropyTuning(views=4, steps=2),
    "by reliability": ReliabilityTuning(views=4, selection=0.5, steps=2, neighbours=2),
}


def classifier_of(*words, max_rows=None):
    return Classifier(golden(), adaptation(*words), CLASS_NAMES, max_rows)


def views(classifier, count=3):
    return classifier.prefix(images(count * 4).unflatten(0, (count, 4)))


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_images_together_are_images_apart(words):
    classifier = classifier_of(*words)
    before = {name: value.clone() for name, value in classifier.adaptation.state_dict().items()}
    x = views(classifier)
    together, apart = TUNING.tune(classifier, x), [TUNING.tune(classifier, image[None]) for image in x]
    close(together.logits, torch.cat([one.logits for one in apart]))
    for name, value in before.items():
        tuned = together.tensors[name]
        assert tuned.shape == (3, *value.shape) and not torch.equal(tuned[0], tuned[1])
        for i, one in enumerate(apart):
            close(together.gradients[name][i], one.gradients[name][0], 1e-4)
            assert (tuned[i] - one.tensors[name][0]).abs().max() < 2e-4
        assert torch.equal(classifier.adaptation.state_dict()[name], value)
    assert [*classifier.adaptation.state_dict()] == [*before]
    assert all(parameter.grad is None for parameter in classifier.adaptation.parameters())


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_images_together_are_images_apart_for_other_objectives(tuning):
    classifier = classifier_of(*CASES["shared"])
    x = views(classifier)
    together, apart = tuning.tune(classifier, x), [tuning.tune(classifier, image[None]) for image in x]
    close(together.logits, torch.cat([one.logits for one in apart]))
    assert torch.equal(together.values["selected"], torch.cat([one.values["selected"] for one in apart]))


class RaisingEntropy(PromptTuning):
    """Views that were selected don't stay those of lowest entropy."""

    def values(self, outputs):
        return {"objective": -super().values(outputs)["objective"]}


def test_views_selected_anew_change_with_the_steps():
    classifier = classifier_of(*CASES["shared"])
    x = views(classifier)
    kept, anew = (
        RaisingEntropy(selection=0.5, steps=4, lr=0.1, select_every_step=each).tune(classifier, x)
        for each in (False, True)
    )
    assert (kept.values["selected"] == kept.values["selected"][:, :1]).all()
    assert (anew.values["selected"] != anew.values["selected"][:, :1]).any()
    assert torch.equal(kept.values["objective"][:, 0], anew.values["objective"][:, 0])


def test_a_view_is_not_its_own_neighbour():
    """Two directions: views of the second have one neighbour near and one far, in whatever way ones are rounded."""
    features = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 3]])[None]
    found = ReliabilityTuning(views=5, neighbours=2).reliability(features)
    close(found, torch.tensor([[1, 1, 1, 0.5, 0.5]]))


def test_neither_shift_nor_scale():
    with pytest.raises(UserError, match="leave nothing to be learned: set one of them to true"):
        adaptation("prototype_shift", "method.adaptation.shift=false")


def test_too_few_views_for_the_neighbours():
    with pytest.raises(UserError, match=r"20 views leave fewer than 20 neighbours .* [a-z_.]*views to at least 21"):
        ReliabilityTuning(views=20)


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_by_hand(words):
    """Steps of an optimiser on a copy that is loaded again."""
    classifier = classifier_of(*words)
    (x,) = views(classifier, 1)
    found = TUNING.tune(classifier, x[None])
    start = {name: value.clone() for name, value in classifier.adaptation.state_dict().items()}
    logs = classifier(x, classifier.image_cut).detach().log_softmax(dim=-1)
    kept = (-(logs.exp() * logs).sum(dim=-1)).argsort()[:2]
    optimizer = torch.optim.AdamW(classifier.adaptation.parameters(), lr=0.005)
    for step in range(2):
        output = classifier.output(x[kept], classifier.image_cut)
        mean = output.logits.softmax(dim=-1).mean(dim=0)
        unit = torch.nn.functional.normalize(output.text, dim=-1)
        spread = (unit - unit.mean(dim=-2, keepdim=True)).norm(dim=-1).mean()
        loss = -(mean * mean.log()).sum() - 2 * spread
        close(found.values["objective"][0, step], loss, 1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    close(found.logits, classifier(x[:1], classifier.image_cut), 1e-4)
    classifier.adaptation.load_state_dict(start)


def test_chunks_do_not_matter():
    whole, chunked = (classifier_of("context", WORDS, max_rows=rows) for rows in (None, 12))
    assert chunked.text_chunks > 1
    x = views(whole)
    one, other = TUNING.tune(whole, x), TUNING.tune(chunked, x)
    close(other.gradients["context"], one.gradients["context"], 1e-4)
    close(other.logits, one.logits, 1e-4)


@pytest.mark.parametrize("words", [CASES["shared"], CASES["of the features"]])
def test_under_autocast(words):
    """What was rounded before a step isn't used after it."""
    classifier = classifier_of(*words)
    x = views(classifier)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = TUNING.tune(classifier, x, classifier.class_embeddings())
    assert found.logits.dtype == torch.float32 and found.logits.isfinite().all()
    assert (found.values["objective"][:, 1] < found.values["objective"][:, 0]).all()


def test_nothing_to_tune():
    classifier = classifier_of("zero_shot")
    with pytest.raises(UserError, match="nothing to tune at test time"):
        TUNING.logits(classifier, views(classifier))
