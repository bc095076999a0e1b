"""Text as rows: the same numbers and gradients as 77 tokens a prompt through open_clip's transformer."""

from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipadapt.backbone.rows import Prompt, Slot, pack, shared_start
from tests.small import close, golden

TOKENIZER = open_clip.SimpleTokenizer()
START, END = TOKENIZER.sot_token_id, TOKENIZER.eot_token_id
WORDS = st.text("abcdehimnorstuy", min_size=1, max_size=7)
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=5)
ENDINGS = st.lists(st.sampled_from([".", " in the snow.", ", a kind of pet.", "!"]), min_size=1, max_size=3)


@st.composite
def prompt_sets(draw: st.DrawFn) -> tuple[list[list[Prompt]], int, bool]:
    """Prompts of some classes with templates, the number of learned vectors, and whether these belong to classes."""
    count, per_class = draw(st.integers(0, 6)), draw(st.booleans())
    slots = [Slot(i, not per_class) for i in range(count)]
    before = draw(st.sampled_from([count, count // 2, 0]))
    endings = draw(ENDINGS)
    names = draw(NAMES)
    return [[[*slots[:before], name, *slots[before:], end] for end in endings] for name in names], count, per_class


def plain(model: Any, prompts: list[list[Prompt]], vectors: Tensor, per_class: bool) -> Tensor:
    """Text features `[C, templates, D]` of whole sequences of 77 tokens."""
    flat = [(c, pieces) for c, templates in enumerate(prompts) for pieces in templates]
    ids = torch.zeros(len(flat), 77, dtype=torch.long)
    places, learned = [], []
    for n, (c, pieces) in enumerate(flat):
        sequence = [START]
        for piece in pieces:
            if isinstance(piece, Slot):
                places.append((n, len(sequence)))
                learned.append(vectors[c, piece.index] if per_class else vectors[piece.index])
            sequence += [TOKENIZER.encode("X")[0]] if isinstance(piece, Slot) else TOKENIZER.encode(piece)
        ids[n, : len(sequence) + 1] = torch.tensor([*sequence, END])
    x = model.token_embedding(ids)
    if places:
        x = x.index_put(tuple(torch.tensor(places).T), torch.stack(learned))
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    read = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=1)] @ model.text_projection
    return read.unflatten(0, (len(prompts), -1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(drawn=prompt_sets())
def test_rows_are_the_plain_path(dtype, tolerance, drawn):
    prompts, count, per_class = drawn
    clip = golden("cpu", dtype)
    generator = torch.Generator().manual_seed(0)
    shape = (len(prompts), count, 128) if per_class else (count, 128)
    vectors = (0.5 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()
    edit = (lambda rows: rows.place_per_class(vectors)) if per_class else (lambda rows: rows.place(vectors))
    expected = plain(clip.model, prompts, vectors, per_class)
    found = clip.text.run(clip.tokenize(prompts), {"words": edit})
    close(found, expected, tolerance)
    if count:
        weights = torch.randn(expected.shape, generator=generator, dtype=dtype)
        close(
            *(torch.autograd.grad((features * weights).sum(), vectors)[0] for features in (found, expected)), tolerance
        )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(drawn=prompt_sets())
def test_a_layout_holds_every_token_once(drawn):
    prompts, count, per_class = drawn
    sequences = [golden().tokenizer.sequence(pieces) for templates in prompts for pieces in templates]
    layout = pack(sequences, (len(prompts), len(prompts[0])), placeholder=7)
    assert len(layout.ids) == layout.prefix + sum(len(sequence) - layout.prefix for sequence in sequences)
    for n, sequence in enumerate(sequences):
        rows = [*range(layout.prefix), *layout.grid[n, : len(sequence) - layout.prefix].tolist()]
        assert layout.ids[rows].tolist() == [7 if isinstance(token, Slot) else token for token in sequence]
        assert layout.positions[rows].tolist() == [*range(len(sequence))]
        assert layout.ends[n] == rows[-1]
    if per_class:
        assert all(layout.slots >= layout.prefix)
        assert len(layout.slots) == count * len(sequences)


def test_the_shared_start():
    shared, own = Slot(0), Slot(0, shared=False)
    assert shared_start([[1, 2, 3, 9], [1, 2, 4, 9]]) == 2
    assert shared_start([[1, shared, 3, 9], [1, shared, 4, 5, 9]]) == 2
    assert shared_start([[1, shared, 3, 9], [1, Slot(1), 3, 9]]) == 1
    assert shared_start([[1, own, 3, 9], [1, own, 3, 9]]) == 1
    assert shared_start([[1, 2, 3], [1, 2, 3, 4]]) == 2, "a prompt's last token is its own"
    assert shared_start([[1, 2, 9], [1, 2, 9]]) == 2
    assert shared_start([[1, 2, 9]]) == 2
    assert shared_start([[1, own, 9]]) == 1
    assert shared_start([[1], [1, 2]]) == 0


def test_packing_by_hand():
    slot = Slot(1, token=5)
    layout = pack([[1, slot, 3, 9], [1, slot, 4, Slot(0, shared=False), 9]], (2, 1), placeholder=7)
    assert layout.prefix == 2
    assert layout.ids.tolist() == [1, 5, 3, 9, 4, 7, 9]
    assert layout.positions.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert layout.grid.tolist() == [[2, 3, 0], [4, 5, 6]]
    assert layout.own.tolist() == [0, 1, 3, 4, 5]
    assert layout.ends.tolist() == [3, 6]
    assert (layout.slots.tolist(), layout.slot_index.tolist(), layout.slot_class.tolist()) == ([1, 5], [1, 0], [0, 1])
    assert layout.mask.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_templates_of_one_class_share_its_vectors():
    own = Slot(0, shared=False)
    layout = pack([[1, own, 9], [1, 2, own, 9], [1, own, 9], [1, 2, own, 9]], (2, 2), placeholder=7)
    assert layout.slot_class.tolist() == [0, 0, 1, 1]
    assert layout.shape == (2, 2)


@pytest.mark.parametrize("names", [["cat"], ["cat", "cat"], ["cat", "cat", "dog"]], ids=len)
@pytest.mark.parametrize("per_class", [False, True])
def test_one_class_and_classes_of_one_name(names, per_class):
    clip, vectors = golden(), torch.randn(len(names), 3, 128, generator=torch.Generator().manual_seed(0))
    prompts = [[[*(Slot(i, not per_class) for i in range(3)), name, "."]] for name in names]
    with torch.no_grad():
        vectors = vectors if per_class else vectors[0]
        edit = (lambda rows: rows.place_per_class(vectors)) if per_class else (lambda rows: rows.place(vectors))
        close(clip.text.run(clip.tokenize(prompts), {"words": edit}), plain(clip.model, prompts, vectors, per_class))


def test_a_context_for_each_image():
    clip, contexts = golden(), torch.randn(2, 3, 4, 128, generator=torch.Generator().manual_seed(0))
    rows = clip.tokenize([[[*map(Slot, range(4)), name, "."]] for name in ("cat", "golden retriever", "tree frog")])
    assert rows.layout.prefix == 5
    with torch.no_grad():
        found = clip.text.run(rows, {"words": lambda rows: rows.place(contexts)})
        one_by_one = [
            clip.text.run(rows, {"words": lambda rows, one=one: rows.place(one)}) for one in contexts.flatten(0, 1)
        ]
    close(found, torch.stack(one_by_one).unflatten(0, (2, 3)))


def test_writing_leaves_the_words_as_they_were():
    clip = golden()
    words = clip.text.run(clip.tokenize([[[Slot(0), "cat"]], [["a", Slot(0), "dog"]]]), stop="words")
    before = words.values.clone()
    written = words.place(torch.zeros(1, 128)).values
    assert torch.equal(words.values, before)
    rest = torch.ones(len(before), dtype=torch.bool).index_fill(0, words.layout.slots, False)
    assert torch.equal(written[rest], before[rest]) and not written[~rest].any()
