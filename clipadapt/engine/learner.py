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
        self.head = head
        self.objective = objective
        weights, shift = (None, None) if imbalance is None else (imbalance.class_weights(), imbalance.logit_shift())
        self.class_weights = None if weights is None else weights.to(head.clip.device)
        self.logit_shift = None if shift is None else shift.to(head.clip.device)

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
        output = self.head.output(x, start)
        seen = replace(
            output,
            teacher_features=teacher_features,
            class_weights=self.class_weights,
            distance=self.head.adaptation.squared_distance,
        )
        if self.logit_shift is not None:
            seen = seen.shifted(self.logit_shift)
        return self.objective(seen, labels), output.logits
