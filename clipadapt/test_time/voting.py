"""A vote among an image's views."""

from typing import Annotated

from annotated_types import Interval
from torch import Tensor
from torch.nn import functional

from clipadapt.tasks.classification import Classifier
from clipadapt.test_time.base import TestTimeMethod
from clipadapt.test_time.views import Count, entropy, most_confident, view_logits


class Voting(TestTimeMethod):
    """ZERO: the surest views of an image vote for its class (Farina et al., NeurIPS 2024, arXiv:2405.18330, section 4).

    Of the mean probability at temperature zero, shares of the votes are what is left. In a tie the surest of the other
    views that predicts one of the tied classes decides; where none does, the surest of those that voted. Nothing is
    learned.

    Args:
        views: of each image: the centre crop, then random ones.
        images: that are looked at together.
        selection: share of the views that vote.
    """

    def __init__(
        self, views: Count = 64, images: Count = 8, selection: Annotated[float, Interval(gt=0, le=1)] = 0.3
    ) -> None:
        super().__init__(views, images)
        self.selection = selection

    def logits(self, classifier: Classifier, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Activations at the image cut `[B, V, ...]` to logarithms `[B, C]` of the votes, minus infinity for none."""
        return self.decide(view_logits(classifier, x, text)).log()

    def select(self, logits: Tensor) -> Tensor:
        """Indices `[B, K]` of the views that vote, given logits `[B, V, C]`."""
        return most_confident(logits, self.selection)

    def votes(self, logits: Tensor) -> Tensor:
        """Votes `[B, C]` of views with logits `[B, V, C]`."""
        ballots = functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])
        chosen = self.select(logits).unsqueeze(-1).expand(-1, -1, logits.shape[-1])
        return ballots.gather(1, chosen).sum(dim=1).float()

    def decide(self, logits: Tensor) -> Tensor:
        """Votes `[B, C]`, and one more for who wins a tie."""
        votes, surest_first = self.votes(logits), entropy(logits).sort(dim=-1, stable=True).indices
        tied = votes == votes.max(dim=-1, keepdim=True).values
        asked = surest_first.roll(-self.select(logits).shape[-1], dims=-1)  # those that didn't vote come first
        predicted = logits.argmax(dim=-1).gather(1, asked)
        decides = tied.gather(1, predicted).int().argmax(dim=-1, keepdim=True)  # the first that predicts a tied class
        winner = functional.one_hot(predicted.gather(1, decides).squeeze(1), votes.shape[-1])
        return votes + winner * (tied.sum(dim=-1, keepdim=True) > 1)
