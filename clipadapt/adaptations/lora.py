"""Low-rank updates of attention's projections."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen

from clipadapt.adaptations.blocks import Which, names
from clipadapt.adaptations.peft import Peft
from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.errors import UserError
from clipadapt.interfaces import SupportView

Projection = Literal["q", "k", "v", "o"]
QKV: list[Projection] = ["q", "k", "v"]
SIXTHS = {"all": (0, 6), "bottom": (0, 2), "mid": (2, 4), "up": (4, 6), "half-bottom": (0, 3), "half-up": (3, 6)}
"""First and last sixth of the blocks at each position."""


class LoRA(Peft):
    """CLIP-LoRA: low-rank updates of attention's projections (Zanella & Ben Ayed, CVPRW 2024, arXiv:2405.18541).

    Each chosen projection W becomes W + alpha / sqrt(rank) B A, with an A and a B of its own. Where the text tower has
    some, its prompts are those of the first template, as in the authors' code.

    Args:
        clip: the frozen backbone.
        task: class names and templates.
        towers: which towers get them.
        projections: of queries, keys, values, and of what was attended (o).
        rank: rows of A.
        alpha: numerator of the scale.
        dropout: rate, of the input of B A alone.
        position: which blocks: all, a third of them, a half of them, or the last three.

    Raises:
        UserError: a tower without blocks, or too few of them for the position.
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
        position: Literal["all", "bottom", "mid", "up", "half-bottom", "half-up", "top3"] = "all",
    ) -> None:
        layers = "|".join({"o": "out_proj"}.get(letter, f"{letter}_proj") for letter in projections)
        places = [rf"{tower}\.block\.({numbers(clip, tower, position)})" for tower in names(towers)]
        config = {
            "peft_type": "LORA",
            "target_modules": rf"({'|'.join(places)})\.attn\.({layers})",
            "r": rank,
            "lora_alpha": alpha,
            "use_rslora": True,
            "lora_dropout": dropout,
        }
        super().__init__(clip, task, towers, config)
        if self.stages("text"):
            self.templates = self.templates[:1]


def numbers(clip: DualEncoder, tower: str, position: str) -> str:
    """The numbers of a tower's blocks at a position, with bars between.

    Raises:
        UserError: there are none.
    """
    count = len(clip.tower(tower).blocks)
    first, last = (count * sixth // 6 for sixth in SIXTHS.get(position, (0, 6)))
    found = range(max(0, count - 3), count) if position == "top3" else range(first, last)
    if count and not found:
        raise UserError(f"the {tower} tower has too few blocks ({count}) for position '{position}': choose 'all'")
    return "|".join(map(str, found))
