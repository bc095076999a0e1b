"""A penalty on the distance of learned tensors from their initial values."""

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor

from clipadapt.backbone.dual_encoder import DualEncoder
from clipadapt.interfaces import SupportView
from clipadapt.objectives.base import Output
from clipadapt.objectives.supervised import CrossEntropy

POWERS = {"1/shots": 1, "1/squared_shots": 2}


class StartPenalty(CrossEntropy):
    """ProLIP: cross entropy plus a penalty on the distance from the start (Fahes et al., 2024, arXiv:2410.05270).

    The penalty is a weight times the squared distance of the learned tensors from CLIP's own, summed over all elements.

    Args:
        clip: the frozen backbone.
        task: class names and support set.
        weight_by: how the weight is set: "1/shots" or "1/squared_shots", by the mean number of support images of a
            class; or "fixed".
        weight: the weight, where `weight_by` is "fixed".
    """

    needs_distance = True

    def __init__(
        self,
        clip: DualEncoder,
        task: SupportView,
        weight_by: Literal["1/shots", "1/squared_shots", "fixed"] = "1/shots",
        weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(clip, task)
        self.weight = weight
        if weight_by != "fixed":
            shots = task.support_shape[1] / len(task.class_names)
            self.weight = shots ** -POWERS[weight_by]

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Compute two losses, `cross_entropy` and `penalty`."""
        assert output.distance is not None
        return super().forward(output, labels) | {"penalty": self.weight * output.distance()}
