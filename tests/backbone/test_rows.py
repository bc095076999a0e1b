"""Text as rows: the same numbers and gradients as 77 tokens a prompt through open_clip's transformer."""

from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipadapt.backbone.packing import pack, shared_start, stack_sizes
from clipadapt.backbone.rows import Prompt, Slot
from tests.layouts import rows_of_prompts
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
    """Text features `[C, templates, D]` of whole sequences of 77 tokens.

    `vectors [depth, n, W]`, or `[depth, C, n, W]` of classes, are written before each of the first blocks.
    """
    flat = [(c, pieces) for c, templates in enumerate(prompts) for pieces in templates]
    ids = torch.zeros(len(flat), 77, dtype=torch.long)
    places: list[tuple[int, ...]] = []
    for n, (c, pieces) in enumerate(flat):
        sequence = [START]
        for piece in pieces:
            if isinstance(piece, Slot):
                places.append((n, len(sequence), c, piece.index))
            sequence += [TOKENIZER.encode("X")[0]] if isinstance(piece, Slot) else TOKENIZER.encode(piece)
        ids[n, : len(sequence) + 1] = torch.tensor([*sequence, END])
    prompt, position, owner, index = torch.tensor(places, dtype=torch.long).reshape(-1, 4).T

    def written(x: Tensor, own: Tensor) -> Tensor:
        return x.index_put((prompt, position), own[owner, index] if per_class else own[index])

    x = written(model.token_embedding(ids), vectors[0]) + model.positional_embedding
    for depth, block in enumerate(model.transformer.resblocks):
        x = block(written(x, vectors[depth]) if 0 < depth < len(vectors) else x, attn_mask=model.attn_mask)
    read = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=1)] @ model.text_projection
    return read.unflatten(0, (len(prompts), -1))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(drawn=prompt_sets(), max_rows=st.sampled_from([None, 1, 20, 60]), deep=st.integers(0, 2))
def test_rows_are_the_plain_path(dtype, tolerance, drawn, max_rows, deep):
    prompts, count, per_class = drawn
    clip = golden("cpu", dtype)
    generator = torch.Generator().manual_seed(0)
    shape = (1 + deep, *([len(prompts)] if per_class else []), count, 128)
    vectors = (0.5 * torch.randn(shape, generator=generator, dtype=dtype)).requires_grad_()
    points = ["words", *(f"block.{i}" for i in range(1, 1 + deep))]
    place = "place_per_class" if per_class else "place"
    edits = {point: lambda rows, own=own: getattr(rows, place)(own) for point, own in zip(points, vectors, strict=True)}
    expected = plain(clip.model, prompts, vectors, per_class)
    found = clip.tokenize_in_chunks(prompts, max_rows).run(clip.text, edits)
    close(found, expected, tolerance)
    if count:
        weights = torch.randn(expected.shape, generator=generator, dtype=dtype)
        close(
            *(torch.autograd.grad((features * weights).sum(), vectors)[0] for features in (found, expected)), tolerance
        )


@settings(max_examples=8, deadline=None, derandomize=True)
@given(drawn=prompt_sets(), leading=st.sampled_from([(2,), (3, 2)]), max_rows=st.sampled_from([None, 20]))
def test_a_context_for_each_image_or_prompt(drawn, leading, max_rows):
    prompts, count, _ = drawn
    prompts = [
        [
            [Slot(i, token=None) if isinstance(piece, Slot) else piece for i, piece in enumerate(own)]
            for own in templates
        ]
        for templates in prompts
    ]
    count = max(
        [piece.index + 1 for templates in prompts for own in templates for piece in own if isinstance(piece, Slot)],
        default=0,
    )
    clip = golden()
    vectors = torch.randn(*leading, count, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = clip.tokenize_in_chunks(prompts, max_rows)
    found = rows.run(clip.text, {"words": lambda rows: rows.place(vectors)})
    flat = vectors.flatten(0, -3)
    expected = torch.stack([plain(clip.model, prompts, one[None], False) for one in flat]).unflatten(0, leading)
    close(found, expected, 1e-4)
    if count:
        weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
        close(*(torch.autograd.grad((features * weights).sum(), vectors)[0] for features in (found, expected)), 1e-4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(drawn=prompt_sets())
def test_a_layout_holds_every_token_once(drawn):
    prompts, count, per_class = drawn
    sequences = [golden().tokenizer.sequence(pieces) for templates in prompts for pieces in templates]
    layout = pack(sequences, (len(prompts), len(prompts[0])), placeholder=7)
    tokens = layout.prefix + sum(len(sequence) - layout.prefix for sequence in sequences)
    assert tokens <= len(layout.ids) <= 1.02 * tokens
    for sequence, rows, end in zip(sequences, rows_of_prompts(layout), layout.ends, strict=True):
        assert layout.ids[rows].tolist() == [7 if isinstance(token, Slot) else token for token in sequence]
        assert layout.positions[rows].tolist() == [*range(len(sequence))]
        assert end == rows[-1]
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
    layout = pack([[1, slot, 3, 9], [1, slot, 4, Slot(0, shared=False), 9]], (2, 1), placeholder=7, first_class=10)
    assert layout.prefix == 2
    assert layout.ids.tolist() == [1, 5, 4, 7, 9, 3, 9], "the longest first"
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 2, 3]
    assert [(stack.count, stack.length) for stack in layout.stacks] == [(1, 3), (1, 2)]
    assert layout.reads.tolist() == [4, 6]
    assert layout.ends.tolist() == [6, 4]
    assert layout.slots.tolist() == [1, 3]
    assert (layout.slot_index.tolist(), layout.slot_class.tolist()) == ([1, 0], [10, 11])
    assert layout.stacks[0].mask.int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert all(stack.end_mask is None for stack in layout.stacks), "all see all there is"
    ends = layout.at_ends()
    assert (ends.ids.tolist(), ends.positions.tolist(), ends.ends.tolist()) == ([9, 9], [4, 3], [1, 0])


def test_stacks():
    assert [*stack_sizes([3, 3, 2])] == [(3, 2), (2, 1)]
    assert [*stack_sizes([30, 30, 29])] == [(30, 3)], "one row in ninety fills up"
    assert [*stack_sizes([9, 8, *[4] * 99])] == [(9, 2), (4, 99)]
    assert [*stack_sizes([5])] == [(5, 1)]


def test_what_fills_up_a_stack_is_not_seen():
    clip = golden()
    short, long = [[1, *range(2, 40), 9], [1, *range(50, 89), 9]]
    layout = pack([short, long], (2, 1), placeholder=7)
    assert [(stack.count, stack.length) for stack in layout.stacks] == [(2, 40)]
    assert layout.stacks[0].end_mask.flatten(1).sum(1).tolist() == [41, 40], "the prefix, and its own"
    with torch.no_grad():
        close(
            clip.text.run(clip.arrange([short, long], (2, 1))),
            torch.cat([clip.text.run(clip.arrange([one], (1, 1))) for one in (short, long)]),
        )


def test_templates_of_one_class_share_its_vectors():
    own = Slot(0, shared=False)
    layout = pack([[1, own, 9], [1, 2, own, 9], [1, own, 9], [1, 2, own, 9]], (2, 2), placeholder=7)
    assert layout.slot_class.tolist() == [0, 1, 0, 1], "the longer prompt of each class, then the shorter"
    assert layout.shape == (2, 2)


@pytest.mark.parametrize("names", [["cat"], ["cat", "cat"], ["cat", "cat", "dog"]], ids=len)
@pytest.mark.parametrize("per_class", [False, True])
def test_one_class_and_classes_of_one_name(names, per_class):
    clip, vectors = golden(), torch.randn(len(names), 3, 128, generator=torch.Generator().manual_seed(0))
    prompts = [[[*(Slot(i, not per_class) for i in range(3)), name, "."]] for name in names]
    with torch.no_grad():
        vectors = vectors if per_class else vectors[0]
        edit = (lambda rows: rows.place_per_class(vectors)) if per_class else (lambda rows: rows.place(vectors))
        expected = plain(clip.model, prompts, vectors[None], per_class)
        close(clip.text.run(clip.tokenize(prompts), {"words": edit}), expected)


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
