"""A buffer of prompts along a stream: what its golden record doesn't show."""

import pytest
import torch

from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.buffer import PromptBuffer
from tests.small import CLASS_NAMES, adaptation, close, golden, images

WORDS = "method.adaptation.words=a photo of a"


def buffer(**changes):
    return PromptBuffer(**{"views": 4, "prompts": 3, "selection": 0.5, "steps": 2, **changes})


def classifier_of(*words):
    return Classifier(golden(), adaptation(*words), CLASS_NAMES)


def views(classifier, count):
    return classifier.prefix(images(count * 4).unflatten(0, (count, 4)))


def distinct(classifier, prompts=3):
    """A state with other offsets for each prompt."""
    learned, generator = dict(classifier.adaptation.named_parameters()), torch.Generator().manual_seed(0)
    offsets = {f"offsets.{name}": torch.randn(prompts, *x.shape, generator=generator) for name, x in learned.items()}
    return {**buffer(prompts=prompts).state_dict(), **offsets}


@pytest.mark.parametrize("words", [["context", WORDS], ["prototype_shift"]], ids=["context", "shift"])
def test_a_stream_goes_on_from_what_was_saved(words):
    classifier = classifier_of(*words)
    start = {name: value.clone() for name, value in classifier.adaptation.state_dict().items()}
    x, whole, first, second = views(classifier, 5), *(buffer(prompts=6) for _ in range(3))
    for stream in (whole, first):
        stream.load_state_dict(distinct(classifier, 6))
    expected = whole.logits(classifier, x)
    found = first.logits(classifier, x[:3])
    second.load_state_dict(first.state_dict())
    close(torch.cat([found, second.logits(classifier, x[3:4]), second.logits(classifier, x[4:])]), expected)
    again, fresh = whole.state_dict(), buffer(prompts=6).logits(classifier, x[4:])
    assert all(torch.equal(value, again[name]) for name, value in second.state_dict().items())
    assert not torch.allclose(fresh, expected[4:])
    whole.reset()
    whole.load_state_dict(distinct(classifier, 6))
    close(whole.logits(classifier, x), expected)
    assert all(torch.equal(value, start[name]) for name, value in classifier.adaptation.state_dict().items())


def test_the_least_recently_used_prompt_is_active_and_is_reset_once_all_were_used():
    classifier, stream, restarts = classifier_of("context", WORDS), buffer(steps=1), []
    for x in views(classifier, 5):
        oldest, whole = stream.order[0], all(stream.used)
        found = stream.adapt(classifier, x)
        assert found.values["active"][-1] == oldest and stream.order[-1] == oldest
        assert found.restarted == (oldest if whole else -1)
        restarts.append(found.restarted)
    assert restarts[0] == -1 and max(restarts) >= 0


def test_all_steps_of_an_image_tune_the_same_prompts_and_these_alone():
    classifier, stream, joined = classifier_of("context", WORDS), buffer(steps=3, weight_decay=0.0), set()
    stream.load_state_dict(distinct(classifier))
    for x in views(classifier, 3):
        oldest, before = stream.order[0], stream.offsets["context"].clone()
        found = stream.adapt(classifier, x)
        active = {*found.values["active"].tolist()}
        moved = (stream.offsets["context"] != before).flatten(1).any(dim=1)
        assert {*moved.nonzero().flatten().tolist()} == active and stream.order[-1] == oldest
        assert {*found.gradients["context"].flatten(1).any(dim=1).nonzero().flatten().tolist()} == active
        joined |= active - {oldest}
    assert joined


def logits_like(highest):
    """Logits of two views of two classes for each prompt, given the higher one of each view."""
    return torch.tensor([[[a, 0.0], [b, 0.0]] for a, b in highest])


def test_the_rule_of_the_paper_takes_those_of_lower_entropy_and_larger_margin():
    #                     least recent  both     lower entropy alone   neither
    logits = logits_like([(1.0, 1.0), (3.0, 1.0), (3.0, 3.5), (0.5, 0.5)])
    paper, released = (PromptBuffer(prompts=4, rule=rule).choose(logits)["active"] for rule in ("paper", "released"))
    assert paper.tolist() == [1, 0]
    # It has rank 1 by entropy, so that one prompt is a candidate by margin: number 1, and at rank 1 it stands itself.
    assert released.tolist() == [0, 0]


def test_an_adaptation_without_tensors_to_copy():
    for words in (["zero_shot"], ["deep_context"]):
        with pytest.raises(UserError, match="a buffer of prompts needs an adaptation that learns a context"):
            buffer().check(adaptation(*words))


def test_another_number_of_prompts():
    with pytest.raises(UserError, match="what was saved has 4 prompts, and this one has 3"):
        buffer().load_state_dict(buffer(prompts=4).state_dict())
