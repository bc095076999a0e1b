"""Learned context vectors that replace the words of a prompt."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Adaptation, Capabilities, Edit
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Prompt, Rows, Slot
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, underscores_to_spaces

Depth = Annotated[int, Ge(1)] | Literal["all"] | None
"""Number of blocks: an integer, "all" blocks of the tower, or None for three quarters of them (9 of 12)."""
INSIDE = 16
"""Width of the joint space divided by the hidden width of the meta-net."""


class Context(Adaptation):
    """CoOp: learned word vectors around the class name (Zhou et al., IJCV 2022, arXiv:2109.01134, section 3.2).

    The vectors `[n_ctx, W]`, or `[C, n_ctx, W]` if class-specific, replace word embeddings; positional embeddings are
    added afterwards. Every prompt ends with a full stop.

    Args:
        clip: the frozen backbone.
        task: class names.
        n_ctx: number of context vectors.
        class_token_position: position of the class name relative to the context.
        class_specific: one context per class instead of one for all.
        words: words whose embeddings initialise the context, and whose number replaces `n_ctx`. If None, the context
            starts normally distributed with standard deviation 0.02. As in the authors' code, tokens beyond one per
            word stay as they are, and a context from words is shared by all classes, whatever `class_specific` is; a
            warning reports this.

    Raises:
        UserError: the text tower's word embeddings can't be edited, or `words` contains no words.
    """

    capabilities = Capabilities(supports_batched_params=True)
    required_points: tuple[str, ...] = ("text.words",)
    shares_rows: bool = True
    """Whether classes share the rows of a shared context, which then may not differ by class in deeper blocks."""
    lead: str = ""
    """What stands between the context and the class name behind it."""
    ending: str = "."
    """What follows the class name, or the context behind it."""

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        n_ctx: Annotated[int, Ge(1)] = 16,
        class_token_position: Literal["end", "middle", "front"] = "end",
        class_specific: bool = False,
        words: str | None = None,
    ) -> None:
        super().__init__(clip, task)
        self.declare(one_name=True)
        clip.text.cut(["words"])
        self.class_token_position = class_token_position
        self.class_specific = class_specific and words is None
        self.words: list[int] = []
        self.leftover: list[int] = []
        if words is not None:
            if class_specific:
                warnings.warn("class_specific has no effect on a context that starts from words", stacklevel=2)
            self._start_from(clip, underscores_to_spaces(words))
            return
        if class_specific:
            self.declare(fixed_classes=tuple(task.class_names))
        shape = (len(task.class_names), n_ctx) if class_specific else (n_ctx,)
        self.context = nn.Parameter(0.02 * torch.randn(*shape, clip.text_width or 0))

    def _start_from(self, clip: DualEncoder, words: str) -> None:
        if not words.strip():
            raise UserError("there are no words to start the context from: give some, or words=null for a random start")
        tokens = clip.tokenizer.encode(words)
        count = len(words.split())
        self.context = nn.Parameter(embed(clip, tokens)[:count].clone())
        self.words, self.leftover = tokens[:count], tokens[count:]

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return one prompt per class: context, class name and full stop, joined as tokens."""
        return [[self._prompt(underscores_to_spaces(name))] for name in names]

    def _prompt(self, name: str) -> Prompt:
        count = self.context.shape[-2]
        tokens: Sequence[int | None] = self.words or [None] * count
        shared = self.shares_rows and not self.class_specific
        slots: list[str | int | Slot] = [Slot(i, shared, tokens[i]) for i in range(count)]
        before = {"end": len(slots), "middle": len(slots) // 2, "front": 0}[self.class_token_position]
        if before == len(slots):
            return [*slots, *self.leftover, *[self.lead] * bool(self.lead), name, self.ending]
        return [*slots[:before], name, *slots[before:], *self.leftover, self.ending]

    def context_vectors(self) -> Tensor:
        """Return the context vectors; those of an image are shifted, if they depend on it."""
        return self.context

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that writes the context vectors into the word embeddings."""
        if tower != "text":
            return {}
        if self.class_specific:
            return {"words": lambda rows: rows.place_per_class(self.context)}
        return {"words": lambda rows: rows.place(self.context)}


class ConditionalContext(Context):
    """CoCoOp: a context shifted by the image feature (Zhou et al., CVPR 2022, arXiv:2203.05557, section 3.2).

    A two-layer network (meta-net) with D // 16 hidden channels maps each unit image feature to one vector, which is
    added to all context vectors.

    Args:
        clip: the frozen backbone.
        task: class names.
        n_ctx: number of context vectors.
        words: words whose embeddings initialise the context, and whose number replaces `n_ctx`; None for random
            initialisation.

    Raises:
        UserError: as for `Context`; or the joint space has fewer than 16 channels.
    """

    capabilities = Capabilities(conditional=True)

    def __init__(
        self, clip: DualEncoder, task: SupportView, n_ctx: Annotated[int, Ge(1)] = 4, words: str | None = "a photo of a"
    ) -> None:
        super().__init__(clip, task, n_ctx, words=words)
        width = clip.width or 0
        if width < INSIDE:
            raise UserError(f"the joint space of {width} channels leaves none of a {INSIDE}th: use a wider backbone")
        self.meta_net = nn.Sequential(
            nn.Linear(width, width // INSIDE), nn.ReLU(), nn.Linear(width // INSIDE, clip.text_width or 0)
        )

    def shift(self, image: Tensor) -> Tensor:
        """Compute the vectors `[B, W]` to add to the context vectors from image features `[B, D]`."""
        with torch.autocast(image.device.type, enabled=False):
            shift: Tensor = self.meta_net(functional.normalize(image.float(), dim=-1))
        return shift

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edit that writes each image's context vectors into the word embeddings."""

        def write(rows: Rows) -> Rows:
            assert image is not None
            return rows.place(self.context + self.shift(image).unsqueeze(-2))

        return {"words": write} if tower == "text" else {}


class DeepContext(Adaptation):
    """Deep text prompts (MaPLe: Khattak et al., CVPR 2023, arXiv:2210.03117, section 3.2).

    The vectors of the first block replace word embeddings, and positional embeddings are added to them. The vectors of
    each deeper block overwrite the previous block's output at the same positions.

    Args:
        clip: the frozen backbone.
        task: class names.
        n_ctx: number of vectors in each block.
        depth: number of blocks, "all", or None for three quarters: 9 of 12.
        words: words before the class name. The embeddings of their first tokens initialise the first block's vectors;
            tokens beyond `n_ctx` stay as they are. All other vectors, and all if None, start normally distributed with
            standard deviation 0.02.

    Attributes:
        context: the vectors, `[depth, n_ctx, W]`.

    Raises:
        UserError: `depth` exceeds the number of text blocks, the word embeddings can't be edited, or `words` has fewer
            than `n_ctx` tokens.
    """

    required_points: tuple[str, ...] = ("text.words", "text.block.0")

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        n_ctx: Annotated[int, Ge(1)] = 4,
        depth: Depth = None,
        words: str | None = "a photo of a",
    ) -> None:
        super().__init__(clip, task)
        self.declare(one_name=True)
        clip.text.cut(["words"])
        self.points = ["words", *clip.text.first_blocks(depth)[1:]]
        self.context = nn.Parameter(0.02 * torch.randn(len(self.points), n_ctx, clip.text_width or 0))
        self.tokens = [] if words is None else clip.tokenizer.encode(underscores_to_spaces(words))
        if words is None:
            return
        if len(self.tokens) < n_ctx:
            raise UserError(f"'{words}' has {len(self.tokens)} tokens for {n_ctx} vectors: give more, or words=null")
        with torch.no_grad():
            self.context[0] = embed(clip, self.tokens)[:n_ctx]

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """Return one prompt per class: slots for the vectors, the remaining words, class name and full stop."""
        count = self.context.shape[1]
        slots = [Slot(i, token=token) for i, token in enumerate([*self.tokens, *[None] * count][:count])]
        return [[[*slots, *self.tokens[count:], underscores_to_spaces(name), "."]] for name in names]

    def context_vectors(self) -> Tensor:
        """Return the vectors of the first block, which alone are in the place of words."""
        return self.context[0]

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits that write each block's vectors into its slots."""
        if tower != "text":
            return {}
        return {point: partial(_place, vectors=self.context[i]) for i, point in enumerate(self.points)}


def _place(rows: Rows, vectors: Tensor) -> Rows:
    return rows.place(vectors)


def embed(clip: DualEncoder, tokens: Sequence[int]) -> Tensor:
    """Return the word embeddings `[n, W]` of tokens, in float32 on the CPU."""
    rows: Rows = clip.text.run(clip.arrange([[*tokens, 0]], (1, 1)), stop="words")
    return rows.values[: len(tokens)].detach().to("cpu", torch.float32)
