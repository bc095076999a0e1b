"""The least number of multiply-adds that a transformer needs.

A row of a block of width W takes 12 W² multiply-adds in the linear layers (4 in the attention's, 8 in the MLP's), and 2
W for each pair of rows of which one attends to the other. In the last block only the rows that are read have queries
and go through the MLP; the others need only keys and values, 2 W². A gradient with respect to the activations takes as
much again in the linear layers, since frozen weights need none, and twice as much in the attention, where both factors
of each product have a gradient. Norms, softmax, embeddings and logits are not counted, so the actual number is larger;
but the first block's gradient, which only the learned rows need, is counted whole (a hundredth at 12 blocks).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipadapt.adaptations import Adaptation
from clipadapt.backbone.open_clip import CLIP


@dataclass(frozen=True)
class Work:
    """A number of multiply-adds, and the shape of the matrix products that make up most of them.

    Attributes:
        multiply_adds: the number of multiply-adds.
        rows: the rows of activations in one pass through a block.
        width: the tower's width.
    """

    multiply_adds: float
    rows: int
    width: int

    def times(self, count: float) -> "Work":
        """Return the work repeated `count` times, in the same shapes."""
        return replace(self, multiply_adds=count * self.multiply_adds)


@dataclass(frozen=True)
class Tokens:
    """The input of a tower: numbers of rows, of rows that are read, and of pairs in the attention."""

    rows: int
    reads: int
    pairs: int
    read_pairs: int


def transformer(width: int, blocks: int, tokens: Tokens, gradient: bool = False) -> float:
    """Return the multiply-adds of tokens through a tower and, if asked for, of the gradient back through it."""
    linear = width**2 * (12 * tokens.rows * (blocks - 1) + 2 * tokens.rows + 10 * tokens.reads)
    attention = 2 * width * (tokens.pairs * (blocks - 1) + tokens.read_pairs)
    return 2 * linear + 3 * attention if gradient else linear + attention


def text(clip: CLIP, adaptation: Adaptation, names: Sequence[str], gradient: bool, images: int = 1) -> Work:
    """Return the work of the class weights: for each template, the shared prefix once, and each class's own tokens.

    Args:
        clip: the backbone.
        adaptation: the adaptation, which has the prompts.
        names: the class names.
        gradient: whether to count a training step's gradient.
        images: the number of images, if each has class weights of its own.
    """
    by_template = list(zip(*adaptation.prompts(names), strict=True))
    counted = [packed(clip, prompts) for prompts in by_template]
    width, blocks = clip.text_width, len(clip.model.transformer.resblocks)
    adds = sum(transformer(width, blocks, tokens, gradient) for tokens in counted)
    return Work(images * adds, images * sum(tokens.rows for tokens in counted), width)


def packed(clip: CLIP, prompts: Sequence) -> Tokens:
    """Return rows and pairs of the prompts of one template, with their shared prefix counted once."""
    shared = clip.tokenize([[prompt] for prompt in prompts]).layout.prefix
    lengths = [len(clip.tokenizer.sequence(prompt)) for prompt in prompts]
    return Tokens(
        rows=shared + sum(length - shared for length in lengths),
        reads=len(lengths),
        pairs=causal_pairs(shared) + sum(causal_pairs(length) - causal_pairs(shared) for length in lengths),
        read_pairs=sum(lengths),
    )


def causal_pairs(length: int) -> int:
    """Return the number of pairs of tokens, in a causal sequence, of which one attends to the other or itself."""
    return length * (length + 1) // 2


def image(clip: CLIP, count: int, at_once: int) -> Work:
    """Return the work of the features of `count` images, of which `at_once` go through the tower together."""
    visual, width = clip.model.visual, clip.image_width
    patches = visual.grid_size[0] * visual.grid_size[1]
    embedding = patches * width * 3 * visual.patch_size[0] * visual.patch_size[1]
    tokens = Tokens(rows=patches + 1, reads=1, pairs=(patches + 1) ** 2, read_pairs=patches + 1)
    adds = embedding + transformer(width, len(visual.transformer.resblocks), tokens)
    return Work(count * adds, at_once * tokens.rows, width)
