"""Learned context: vectors in the place of a prompt's words."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clipadapt.adaptations.base import Adaptation, Edit, TaskLike, spaced
from clipadapt.backbone.clip import CLIP
from clipadapt.backbone.rows import Prompt, Slot
from clipadapt.errors import UserError


class Context(Adaptation):
    """CoOp: learned word vectors around the class name (Zhou et al., IJCV 2022, arXiv:2109.01134, section 3.2).

    The vectors `[n_ctx, W]`, or `[C, n_ctx, W]` when class-specific, take the place of word embeddings; positions are
    added afterwards. Every prompt ends with a full stop.

    Args:
        clip: the frozen backbone.
        task: class names.
        n_ctx: number of context vectors.
        class_token_position: where the class name stands relative to the context.
        class_specific: one context per class instead of one for all.
        words: words whose embeddings start the context, and whose number replaces `n_ctx`; normal with deviation 0.02
            where None. As in the authors' code, tokens beyond one per word stay as they are, and such a context is
            shared by all classes whatever `class_specific` says; a warning says so.

    Raises:
        UserError: the text tower's words can't be edited, or there are no words in `words`.
    """

    def __init__(
        self,
        clip: CLIP,
        task: TaskLike,
        n_ctx: Annotated[int, Ge(1)] = 16,
        class_token_position: Literal["end", "middle", "front"] = "end",
        class_specific: bool = False,
        words: str | None = None,
    ) -> None:
        super().__init__(clip, task)
        clip.text.cut(["words"])
        self.class_token_position = class_token_position
        self.class_specific = class_specific and words is None
        self.words: list[int] = []
        self.leftover: list[int] = []
        if words is not None:
            if class_specific:
                warnings.warn("class_specific has no effect on a context that starts from words", stacklevel=2)
            self._start_from(clip, spaced(words))
            return
        if class_specific:
            self.fixed_classes = list(task.class_names)
        shape = (len(task.class_names), n_ctx) if class_specific else (n_ctx,)
        self.context = nn.Parameter(0.02 * torch.randn(*shape, clip.text_width or 0))

    def _start_from(self, clip: CLIP, words: str) -> None:
        if not words.strip():
            raise UserError("there are no words to start the context from: give some, or words=null for a random start")
        tokens = clip.tokenizer.encode(words)
        count = len(words.split())
        embedded = clip.text.run(clip.arrange([[*tokens, 0]], (1, 1)), stop="words").values
        self.context = nn.Parameter(embedded[:count].detach().to("cpu", torch.float32).clone())
        self.words, self.leftover = tokens[:count], tokens[count:]

    def prompts(self, names: Sequence[str]) -> list[list[Prompt]]:
        """One prompt a class: context, name and full stop, spliced as tokens."""
        return [[self._prompt(spaced(name))] for name in names]

    def _prompt(self, name: str) -> Prompt:
        count = self.context.shape[-2]
        tokens: Sequence[int | None] = self.words or [None] * count
        slots: list[str | int | Slot] = [Slot(i, not self.class_specific, tokens[i]) for i in range(count)]
        before = {"end": len(slots), "middle": len(slots) // 2, "front": 0}[self.class_token_position]
        if before == len(slots):
            return [*slots, *self.leftover, name, "."]
        return [*slots[:before], name, *slots[before:], *self.leftover, "."]

    def text_edits(self, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Writes the context into its places among the words."""
        if self.class_specific:
            return {"words": lambda rows: rows.place_per_class(self.context)}
        return {"words": lambda rows: rows.place(self.context)}
