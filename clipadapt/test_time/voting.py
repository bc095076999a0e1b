"""Classification by a majority vote of an image's views."""

from typing import Annotated

from annotated_types import Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.views import Count, entropy, most_confident, view_logits


class Voting(TestTimeMethod):
    """ZERO: a vote of an image's most confident views (Farina et al., NeurIPS 2024, arXiv:2405.18330, section 4).

    The shares of the votes are the mean probability of the voting views at temperature zero. A tie is broken by the
    most confident view that did not vote and that predicts one of the tied classes; if there is none, by the most
    confident view that voted for one of them. No tensors are trained.

    Args:
        views: number of views of each image: the centre crop, then random crops.
        images: number of images in a batch.
        selection: share of the views that vote.
    """

    def __init__(
        self, views: Count = 64, images: Count = 8, selection: Annotated[float, Interval(gt=0, le=1)] = 0.3
    ) -> None:
        super().__init__(views, images)
        self.selection = selection

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Compute the logarithms `[B, C]` of the votes, given activations `[B, V, ...]` at the image cut.

        Classes without votes get minus infinity.
        """
        return self.decide(view_logits(classifier, x, text)).log()

    def select(self, logits: Tensor) -> Tensor:
        """Return the indices `[B, K]` of the views that vote, given logits `[B, V, C]`."""
        return most_confident(logits, self.selection)

    def votes(self, logits: Tensor) -> Tensor:
        """Count the votes `[B, C]`, given logits `[B, V, C]`."""
        ballots = functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])
        chosen = self.select(logits).unsqueeze(-1).expand(-1, -1, logits.shape[-1])
        return ballots.gather(1, chosen).sum(dim=1).float()

    def decide(self, logits: Tensor) -> Tensor:
        """Count the votes `[B, C]`, given logits `[B, V, C]`, with one more vote for the winner of a tie."""
        votes, most_confident_first = self.votes(logits), entropy(logits).sort(dim=-1, stable=True).indices
        tied = votes == votes.max(dim=-1, keepdim=True).values
        asked = most_confident_first.roll(-self.select(logits).shape[-1], dims=-1)  # views that didn't vote come first
        predicted = logits.argmax(dim=-1).gather(1, asked)
        decides = tied.gather(1, predicted).int().argmax(dim=-1, keepdim=True)  # the first with a tied class
        winner = functional.one_hot(predicted.gather(1, decides).squeeze(1), votes.shape[-1])
        return votes + winner * (tied.sum(dim=-1, keepdim=True) > 1)
