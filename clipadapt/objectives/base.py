"""What every objective gets and gives."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Output:
    """What a forward pass yields.

    Attributes:
        logits: `[B, C]`.
        image: image features, `[B, D]`.
        text: class weights, `[C, D]` or `[B, C, D]`.
    """

    logits: Tensor
    image: Tensor
    text: Tensor


class Objective(nn.Module):
    """Named losses of a batch, each the mean over its samples; their sum is minimised."""

    def forward(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Losses by name.

        Args:
            output: of the batch.
            labels: class indices, `[B]`.
        """
        raise NotImplementedError
