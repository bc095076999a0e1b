"""How many multiply-adds a transformer can't do without.

A row of a block of width W takes 12 W² multiply-adds in the linear layers (4 in the attention's, 8 in the MLP's), and
2 W for each pair of rows of which one sees the other. In the last block only the rows that are read ask and go through
the MLP; of the others only keys and values are needed, 2 W². A gradient with respect to the activations takes as much
again in the linear layers, since frozen weights need none, and twice as much in the attention, of which both factors of
each product have one. Norms, softmax, embeddings and logits are left out, so what is done is more than what is counted;
but the first block's gradient, of which the learned rows alone need all, is counted whole (a hundredth at 12 blocks).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from clipadapt.adaptations import Adaptation
from clipadapt.backbone.open_clip import CLIP


@dataclass(frozen=True)
class Work:
    """Multiply-adds that are needed, and the shape of the matrix products that they mostly are.

    Attributes:
        multiply_adds: their number.
        rows: of the activations that a block sees at once.
        width: of the tower.
    """

    multiply_adds: float
    rows: int
    width: int

    def times(self, count: float) -> "Work":
        """So many times the work, in the same shapes."""
        return replace(self, multiply_adds=count * self.multiply_adds)


@dataclass(frozen=True)
class Tokens:
    """What goes through a tower: how many rows, how many of them are read, and the pairs that attention has."""

    rows: int
    reads: int
    pairs: int
    read_pairs: int


def transformer(width: int, blocks: int, tokens: Tokens, gradient: bool = False) -> float:
    """Multiply-adds of tokens through a tower, and if asked for of the gradient back through it."""
    linear = width**2 * (12 * tokens.rows * (blocks - 1) + 2 * tokens.rows + 10 * tokens.reads)
    attention = 2 * width * (tokens.pairs * (blocks - 1) + tokens.read_pairs)
    return 2 * linear + 3 * attention if gradient else linear + attention


def text(clip: CLIP, adaptation: Adaptation, names: Sequence[str], gradient: bool, images: int = 1) -> Work:
    """Work of the class weights: of each template, what all classes share once, and each class's own tokens.

    Args:
        clip: the backbone.
        adaptation: writes the prompts.
        names: the classes.
        gradient: whether it is a training step.
        images: how many there are, where each has class weights of its own.
    """
    by_template = list(zip(*adaptation.prompts(names), strict=True))
    counted = [packed(clip, prompts) for prompts in by_template]
    width, blocks = clip.text_width, len(clip.model.transformer.resblocks)
    adds = sum(transformer(width, blocks, tokens, gradient) for tokens in counted)
    return Work(images * adds, images * sum(tokens.rows for tokens in counted), width)


def packed(clip: CLIP, prompts: Sequence) -> Tokens:
    """Rows and pairs of the prompts of one template, their shared start counted once."""
    shared = clip.tokenize([[prompt] for prompt in prompts]).layout.prefix
    lengths = [len(clip.tokenizer.sequence(prompt)) for prompt in prompts]
    return Tokens(
        rows=shared + sum(length - shared for length in lengths),
        reads=len(lengths),
        pairs=seen(shared) + sum(seen(length) - seen(shared) for length in lengths),
        read_pairs=sum(lengths),
    )


def seen(length: int) -> int:
    """Pairs of tokens of a causal sequence of which the later one sees the earlier, or itself."""
    return length * (length + 1) // 2


def image(clip: CLIP, count: int, at_once: int) -> Work:
    """Work of the features of so many images, of which so many go through the tower together."""
    visual, width = clip.model.visual, clip.image_width
    patches = visual.grid_size[0] * visual.grid_size[1]
    embedding = patches * width * 3 * visual.patch_size[0] * visual.patch_size[1]
    tokens = Tokens(rows=patches + 1, reads=1, pairs=(patches + 1) ** 2, read_pairs=patches + 1)
    adds = embedding + transformer(width, len(visual.transformer.resblocks), tokens)
    return Work(count * adds, at_once * tokens.rows, width)
