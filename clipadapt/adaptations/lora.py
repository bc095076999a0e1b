"""Low-rank updates of attention projections."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from torch import nn

from clipadapt.adaptations.blocks import Which, names
from clipadapt.adaptations.peft import Peft
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView

Projection = Literal["q", "k", "v", "o"]
QKV: list[Projection] = ["q", "k", "v"]
SIXTHS = {"all": (0, 6), "bottom": (0, 2), "mid": (2, 4), "up": (4, 6), "half-bottom": (0, 3), "half-up": (3, 6)}
"""The blocks at each position, in sixths of all blocks: the first sixth, and the last one (excluded)."""
Position = (
    Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"]
    | Annotated[list[Annotated[int, Ge(0)]], MinLen(1)]
)
"""A name of `SIXTHS`, the last three blocks, or the numbers of the blocks, from 0."""


class LoRA(Peft):
    """CLIP-LoRA: low-rank updates of attention projections (Zanella & Ben Ayed, CVPRW 2024, arXiv:2405.18541).

    Each chosen projection W becomes W + scale B A, with its own A and B; B starts at zero. If text blocks are adapted,
    only the first template is used for prompts, as in the authors' code.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: the towers to adapt.
        projections: the projections to update: of queries (q), keys (k), values (v), and the output projection (o).
        rank: rank of the update, the number of rows of A.
        alpha: numerator of the scale of the update.
        dropout: dropout rate of the update's input; the frozen projection gets the input without dropout.
        position: the blocks to adapt: all, a third of them, half of them, the last three, or those with given numbers.
        scaling: whether the scale is alpha / sqrt(rank), or alpha / rank (Hu et al., ICLR 2022, arXiv:2106.09685).
        start: distribution of A at the start: peft's uniform one (Kaiming), or a normal one (Xavier), as in TTL
            (Imam et al., WACV 2025, arXiv:2407.15913).

    Raises:
        UserError: a tower has no blocks, or too few of them for the position.
    """

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        towers: Which = "both",
        projections: Annotated[list[Projection], MinLen(1)] = QKV,
        rank: Annotated[int, Ge(1)] = 2,
        alpha: Annotated[float, Gt(0)] = 1.0,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.25,
        position: Position = "all",
        scaling: Literal["sqrt_rank", "rank"] = "sqrt_rank",
        start: Literal["kaiming", "xavier"] = "kaiming",
    ) -> None:
        layers = "|".join({"o": "out_proj"}.get(letter, f"{letter}_proj") for letter in projections)
        places = [rf"{tower}\.block\.({numbers(clip, tower, position)})" for tower in names(towers)]
        config = {
            "peft_type": "LORA",
            "target_modules": rf"({'|'.join(places)})\.attn\.({layers})",
            "r": rank,
            "lora_alpha": alpha,
            "use_rslora": scaling == "sqrt_rank",
            "lora_dropout": dropout,
        }
        super().__init__(clip, task, towers, config)
        for name, x in self.named_parameters():
            if start == "xavier" and "lora_A" in name:
                nn.init.xavier_normal_(x)
        if self.stages("text"):
            self.templates = self.templates[:1]


def numbers(clip: DualEncoder, tower: str, position: Position) -> str:
    """Return the numbers of a tower's blocks at a position, joined by "|" for a regular expression.

    Raises:
        UserError: the tower has too few blocks for the position.
    """
    count = len(clip.tower(tower).blocks)
    if not isinstance(position, str):
        if beyond := [number for number in position if number >= count > 0]:
            raise UserError(f"the {tower} tower has no block {beyond[0]} for position: its last one is {count - 1}")
        return "|".join(map(str, position))
    first, last = (count * sixth // 6 for sixth in SIXTHS.get(position, (0, 6)))
    found = range(max(0, count - 3), count) if position == "top3" else range(first, last)
    if count and not found:
        raise UserError(f"the {tower} tower has too few blocks ({count}) for position '{position}': choose 'all'")
    return "|".join(map(str, found))
