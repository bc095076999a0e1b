"""Phases of a fit by gradient, one after another; each trains some of the parameters with an optimiser of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from clipadapt.adaptations.base import Adaptation
from clipadapt.errors import UserError

ROUNDING = 1e-9
"""Added to a number of epochs before it is rounded down, since shares such as 0.6 aren't exact in binary."""


@dataclass(frozen=True)
class Phase:
    """A phase of a fit.

    Attributes:
        number: the phase, counted from 0.
        first: number of epochs of the fit before it.
        end: number of epochs of the fit after it.
        whole: number of its epochs where the fit isn't shortened.
    """

    number: int
    first: int
    end: int
    whole: int


def list_phases(shares: Sequence[float] | None, epochs: int, whole: int) -> list[Phase]:
    """Return the phases of a fit; their epochs are rounded down, and the last one ends with the fit.

    Args:
        shares: share of the epochs of each phase; None for one phase.
        epochs: number of epochs of the fit.
        whole: their number where the fit isn't shortened.
    """
    spans, wholes = pairwise(_bounds(shares, epochs)), pairwise(_bounds(shares, whole))
    return [
        Phase(number, first, end, last - begin)
        for number, ((first, end), (begin, last)) in enumerate(zip(spans, wholes, strict=True))
    ]


def _bounds(shares: Sequence[float] | None, epochs: int) -> list[int]:
    shares = shares or [1.0]
    return [int(sum(shares[:phase]) * epochs + ROUNDING) for phase in range(len(shares))] + [epochs]


def check_phases(adaptation: Adaptation, shares: Sequence[float] | None) -> None:
    """Check that a fit has as many phases as an adaptation, and that their shares add up to 1.

    Raises:
        UserError: they don't.
    """
    phases = adaptation.capabilities.phases
    if len(shares or [1.0]) != phases:
        expected = "null" if phases == 1 else f"{phases} shares of the epochs that add up to 1"
        raise UserError(
            f"this method's number of phases is {phases}: set engine.phases to {expected}, and not to {shares}"
        )
    if shares and abs(sum(shares) - 1) > 1e-6:
        raise UserError(f"the shares of engine.phases={[*shares]} must add up to 1, and they make {sum(shares):g}")


@contextmanager
def trained_alone(adaptation: Adaptation, phase: int) -> Iterator[list[nn.Parameter]]:
    """Let gradients reach the parameters of a phase alone; yields them."""
    trained = adaptation.trained_in(phase)
    kept = {id(parameter) for parameter in trained}
    others = [parameter for parameter in adaptation.parameters() if id(parameter) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield trained
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
