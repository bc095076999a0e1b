"""The module that Accelerate wraps: one forward pass from images to losses."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from clipadapt.engine.imbalance import Imbalance
from clipadapt.objectives.base import Objective
from clipadapt.tasks.base import Head


class Learner(nn.Module):
    """Head and objective as one module, so that data parallelism and compilation wrap one forward pass.

    Args:
        head: CLIP with the adaptation that is fitted.
        objective: the objective.
        imbalance: how classes of unequal size are treated; None for not at all.
    """

    def __init__(self, head: Head, objective: Objective, imbalance: Imbalance | None = None) -> None:
        super().__init__()
        self.imbalance = imbalance
        self.head = head
        self.objective = objective

    def forward(
        self, x: Tensor, labels: Tensor, start: str, teacher_features: Sequence[Tensor] = ()
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the named losses of a batch, and its logits `[B, C]`.

        Args:
            x: images `[B, 3, height, width]`, or their activations at the point `start`.
            labels: class indices, `[B]`.
            start: "pixels", or the name of the image cut.
            teacher_features: each teacher's features of the same views, `[B, D]`.
        """
        output = replace(self.head.output(x, start), teacher_features=teacher_features)
        seen = output if self.imbalance is None else self.imbalance.change(output)
        return self.objective(seen, labels), output.logits
