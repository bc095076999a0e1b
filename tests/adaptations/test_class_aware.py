"""Tokens made from each class's name: which class gets which, in chunks, beside the context."""

import pytest
import torch
from torch.nn import functional

from clipadapt.config import setting
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classifier
from tests.small import CLASS_NAMES, adaptation, close, golden, images

OF = "method.adaptation."


def test_classes_named_later_get_tokens_of_their_own():
    built = adaptation("class_aware_context")
    names = ["tree_frog", "owl"]
    rows = Classifier(golden(), built, CLASS_NAMES).for_classes(names).text_start.chunks[0][0]
    text = golden().text_features([[f"a photo of a {n}.", f"a drawing of the {n}."] for n in ("tree frog", "owl")])
    expected = functional.normalize(text.mean(dim=1), dim=-1)
    close(rows.layout.references, expected)
    edits = built.edits("text")
    written = edits["block.2"](edits["words"](rows))
    own = written.values[rows.layout.slots[rows.layout.slot_class == 1]]
    close(own, built.class_tokens(expected)[1])


@torch.no_grad()
def test_in_chunks_as_at_once():
    built = adaptation("class_aware_context", f"{OF}block=1", f"{OF}weight=0.4")
    whole = Classifier(golden(), built, CLASS_NAMES)
    parted = Classifier(golden(), built, CLASS_NAMES, max_rows=20)
    assert parted.text_chunks > 1
    close(parted(images(2)), whole(images(2)))


@torch.no_grad()
def test_without_weight_it_is_coop():
    plain = adaptation("context", f"{OF}words=a photo of a")
    built = adaptation("class_aware_context", f"{OF}words=a photo of a", f"{OF}weight=0")
    close(*(Classifier(golden(), one, CLASS_NAMES)(images(2)) for one in (built, plain)))


@torch.no_grad()
@pytest.mark.parametrize(("lead", "ending"), [("", ", a type of pet."), ("person doing", "."), ("", " texture")])
def test_what_stands_beside_the_name(lead, ending):
    given = {"words": "a photo of a", "weight": 0, "lead": lead, "ending": ending}
    built = adaptation("class_aware_context", *(setting(f"{OF}{key}", value) for key, value in given.items()))
    names = [f"{lead} {name.replace('_', ' ')}".strip() for name in CLASS_NAMES]
    text = golden().text_features([f"a photo of a {name}{ending}" for name in names])
    close(Classifier(golden(), built, CLASS_NAMES).text_features(), text)


def test_a_block_that_the_tower_lacks():
    with pytest.raises(
        UserError, match="block=4 is not among the text tower's 4 blocks, counted from 0: choose at most 3"
    ):
        adaptation("class_aware_context", f"{OF}block=4")
