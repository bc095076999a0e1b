"""Consistency with frozen CLIP of sentences and other views."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt.errors import UserError
from clipadapt.objectives import ViewConsistency
from tests.small import CLASS_NAMES, TASK, golden

TABLE = {name: [f"A {name}.", f"The {name} here.", f"Some {name}."] for name in CLASS_NAMES}
NONE: dict[str, list[str]] = {name: [] for name in CLASS_NAMES}


def test_a_place_in_the_lists_for_all_classes():
    torch.manual_seed(0)
    objective = ViewConsistency(golden(), TASK, sentences=TABLE)
    for place in range(3):
        one_each = {name: texts[place : place + 1] for name, texts in TABLE.items()}
        alone = ViewConsistency(golden(), TASK, sentences=one_each)
        torch.testing.assert_close(objective.sentence_features[place], alone.sentence_features[0], rtol=0, atol=1e-5)
    assert {objective.draw() for _ in range(40)} == {0, 1, 2}


def test_without_sentences_the_templates():
    assert len(ViewConsistency(golden(), TASK).sentence_features) == len(TASK.templates)
    own = ViewConsistency(golden(), TASK, templates=["a {}", "the {}", "one {}"])
    spaced = {name: name.replace("_", " ") for name in CLASS_NAMES}
    table = {name: [f"a {words}", f"the {words}", f"one {words}"] for name, words in spaced.items()}
    expected = ViewConsistency(golden(), TASK, sentences=table)
    torch.testing.assert_close(own.sentence_features, expected.sentence_features, rtol=0, atol=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_the_distances_of_unit_features(distance):
    objective = ViewConsistency(golden(), TASK, weight=2.0, distance=distance)
    objective.draw = lambda: 1
    text, image, frozen = torch.randn(5, 64), torch.randn(3, 64), torch.randn(3, 64)
    output = SimpleNamespace(
        logits=torch.randn(3, 5), text=text, image=image, teacher_features=[frozen], class_weights=None
    )
    found = objective(output, torch.tensor([0, 1, 2]))
    for name, ours, other in (("text", text, objective.sentence_features[1]), ("image", image, frozen)):
        squares = (functional.normalize(ours, dim=-1) - functional.normalize(other, dim=-1)).square()
        expected = squares.mean() if distance == "mse" else squares.sum(dim=-1).mean() / 2
        torch.testing.assert_close(found[name], 2 * expected)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({CLASS_NAMES[1]: ["one"]}, f"the class {CLASS_NAMES[1]} has 1 sentences, and {CLASS_NAMES[0]} has 3"),
        (
            {CLASS_NAMES[1]: [""] * len(TABLE[CLASS_NAMES[1]])},
            f"a sentence of the class {CLASS_NAMES[1]} in `sentences` is empty",
        ),
        (NONE, f"the class {CLASS_NAMES[0]} has 0 sentences"),
    ],
)
def test_lists_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        ViewConsistency(golden(), TASK, sentences=TABLE | changes)


def test_a_class_without_a_list():
    with pytest.raises(UserError, match=f"there are no sentences of the class {CLASS_NAMES[2]}"):
        ViewConsistency(golden(), TASK, sentences={n: texts for n, texts in TABLE.items() if n != CLASS_NAMES[2]})
