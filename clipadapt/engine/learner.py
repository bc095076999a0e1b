"""The one forward pass that Accelerate wraps."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from clipadapt.objectives.base import Objective
from clipadapt.tasks.base import Head


class Learner(nn.Module):
    """A head and what is minimised, as one module, so that data parallelism and compilation see one forward.

    Args:
        head: CLIP through the adaptation that is fitted.
        objective: what is minimised.
    """

    def __init__(self, head: Head, objective: Objective) -> None:
        super().__init__()
        self.head = head
        self.objective = objective

    def forward(
        self, x: Tensor, labels: Tensor, start: str, teacher_features: Sequence[Tensor] = ()
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Named losses of a batch, and its logits `[B, C]`.

        Args:
            x: images `[B, 3, height, width]`, or their activation at the point `start`.
            labels: class indices, `[B]`.
            start: "pixels", or the name of the image cut.
            teacher_features: features `[B, D]` that each of the objective's teachers has of the same views.
        """
        output = replace(self.head.output(x, start), teacher_features=teacher_features)
        return self.objective(output, labels), output.logits
