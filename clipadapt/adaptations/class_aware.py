"""A context that a block of the text tower replaces by tokens made from each class's own text feature."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from clipadapt.adaptations.base import Capabilities, Edit
from clipadapt.adaptations.context import Context
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.backbone.rows import Rows
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView, Templates, class_prompts


class ClassAwareContext(Context):
    """TCP: a context, and tokens that belong to each class (Yao et al., CVPR 2024, arXiv:2311.18231).

    The context enters at the words, as CoOp's does. A two-layer network (meta-net) maps the unit text feature of a
    class's hand-written prompt to as many tokens, which take the context's rows at the entry of one block, without
    positional embeddings. So the context acts on the other words in the blocks before that one.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        n_ctx: number of context vectors, and of tokens of each class.
        words: words whose embeddings initialise the context, and whose number replaces `n_ctx`; None for random
            initialisation.
        lead: what stands between the context and the class name, such as "person doing".
        ending: what follows the class name, such as ", a type of pet.".
        block: index of the text block, from 0; None for two thirds of the blocks: 8 of 12.
        weight: weight of the tokens; the rest is what the block before left in their rows. The authors' code has 1,
            whatever its setting says.
        hidden: the meta-net's hidden width; None for D // 4.
        templates: hand-written prompts with `{}`, whose raw features are averaged; the task's if None.

    Raises:
        UserError: as for `Context`; or the tower has no such block.
    """

    capabilities = Capabilities()
    required_points: tuple[str, ...] = ("text.words", "text.block.0")
    shares_rows = False

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        n_ctx: Annotated[int, Ge(1)] = 4,
        words: str | None = None,
        lead: str = "",
        ending: str = ".",
        block: Annotated[int, Ge(0)] | None = None,
        weight: Annotated[float, Interval(ge=0, le=1)] = 1.0,
        hidden: Annotated[int, Ge(1)] | None = None,
        templates: Templates | None = None,
    ) -> None:
        super().__init__(clip, task, n_ctx, words=words)
        self.lead, self.ending, self.weight = lead, ending, weight
        self.templates = templates or task.templates
        self.point = _point(clip, block)
        width = clip.width or 0
        inside = hidden or max(1, width // 4)
        self.down, self.up = nn.Linear(width, inside), nn.Linear(inside, self.context.numel())

    def reference_features(self, clip: DualEncoder, names: Sequence[str]) -> Tensor:
        """Return unit features `[N, D]` of each name's hand-written prompts by the frozen text tower."""
        text = clip.text_features([[*own] for own in class_prompts(self.templates, names)])
        return functional.normalize(text.float().mean(dim=1), dim=-1)

    def class_tokens(self, references: Tensor) -> Tensor:
        """Compute the tokens `[C, n, W]` of classes from their unit text features `[C, D]`."""
        with torch.autocast(references.device.type, enabled=False):
            hidden = self.down(references.float())
            tokens: Tensor = self.up(hidden * torch.sigmoid(1.702 * hidden))  # QuickGELU, as in CLIP's blocks
        return tokens.unflatten(-1, self.context.shape)

    def edits(self, tower: str, image: Tensor | None = None) -> Mapping[str, Edit]:
        """Return the edits that write the context into the words, and each class's tokens into the block's input."""

        def write(rows: Rows) -> Rows:
            assert rows.layout.references is not None
            return rows.blend_per_class(self.class_tokens(rows.layout.references), self.weight)

        own = super().edits(tower, image)
        return {**own, self.point: write} if own else own


def _point(clip: DualEncoder, block: int | None) -> str:
    """Return the point of a text block, by its index."""
    blocks = clip.text.first_blocks("all")
    chosen = len(blocks) * 2 // 3 if block is None else block
    if chosen >= len(blocks):
        raise UserError(
            f"block={chosen} is not among the text tower's {len(blocks)} blocks, counted from 0: choose at most "
            f"{len(blocks) - 1}"
        )
    return blocks[chosen]
