"""Features of test images that are kept along a stream, by predicted class."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipadapt.errors import UserError
from clipadapt.test_time.views import ViewSummary

Capacity = Annotated[int, Ge(0)]


class Entries:
    """A limited number of test images for each predicted class: the most confident ones, in order of entropy.

    Args:
        capacity: maximum number of images per class.

    Attributes:
        entries: `entropy` (infinite for free places), `position` in the stream, `key` (the image feature) and the
            tensors that `remember` adds, each `[C, capacity, ...]`; empty before the first image.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.entries: dict[str, Tensor] = {}

    @property
    def filled(self) -> Tensor:
        """Whether each place has an image, `[C, capacity]`."""
        return self.entries["entropy"].isfinite()

    def accepts(self, summary: ViewSummary) -> Tensor:
        """Return whether one image may enter; always unless overridden."""
        return torch.ones_like(summary.entropy, dtype=torch.bool)

    def remember(self, summary: ViewSummary) -> dict[str, Tensor]:
        """Return the tensors to store with one image's feature, by name; none unless overridden."""
        return {}

    def place(self, entropies: Tensor) -> int:
        """Return the place of a class that its next image may take: the last one unless overridden.

        Args:
            entropies: entropies of the class's images, `[capacity]`.
        """
        return -1

    def displaces(self, summary: ViewSummary, other: Tensor) -> Tensor:
        """Return whether one image takes a place with this entropy: if its own is lower, unless overridden."""
        return summary.entropy < other

    def order(self, label: int) -> Tensor | None:
        """Return the order of a class's places after an image came, by entropy unless overridden; None: as it is."""
        return self.entries["entropy"][label].sort(stable=True).indices

    def put(self, summary: ViewSummary, position: int) -> None:
        """Put one image into a place of its predicted class, if it is accepted and displaces what is there.

        Args:
            summary: summary of the image.
            position: number of images before this one in the stream.
        """
        image = {"entropy": summary.entropy, "position": summary.logits.new_tensor(position, dtype=torch.long)}
        image |= {"key": summary.feature, **self.remember(summary)}
        if not self.entries:
            self.entries = {name: self._free(value, len(summary.logits)) for name, value in image.items()}
            self.entries["entropy"].fill_(torch.inf)
            self.entries["position"].fill_(-1)
        label = int(summary.logits.argmax())
        place = self.place(self.entries["entropy"][label])
        enters = self.accepts(summary) & self.displaces(summary, self.entries["entropy"][label, place])
        for name, values in self.entries.items():
            values[label, place] = torch.where(enters, image[name], values[label, place])
        if (order := self.order(label)) is not None:
            for values in self.entries.values():
                values[label] = values[label, order]

    def load(self, entries: dict[str, Tensor]) -> None:
        """Load saved entries.

        Raises:
            UserError: the entries come from a cache of another capacity.
        """
        if any(values.shape[1] != self.capacity for values in entries.values()):
            found = next(iter(entries.values())).shape[1]
            raise UserError(f"what was saved has a cache of {found} images a class, and this one has {self.capacity}")
        self.entries = entries

    def _free(self, value: Tensor, classes: int) -> Tensor:
        return value.new_zeros(classes, self.capacity, *value.shape)
