"""Few-shot samples by seed, the same as CoOp's (Zhou et al., IJCV 2022, arXiv:2109.01134) for the same lists."""

import random
from collections.abc import Iterable, Sequence

from clipadapt.errors import UserError

MOST_VALIDATION_SHOTS = 4


def draw(indices: Iterable[int], labels: Sequence[int], shots: int, stream: random.Random) -> list[int]:
    """Draw up to `shots` of the indices of each class, classes in order of first appearance.

    A class with fewer keeps them all, in order, and takes nothing from the stream.
    """
    members: dict[int, list[int]] = {}
    for index in indices:
        members.setdefault(labels[index], []).append(index)
    chosen: list[int] = []
    for candidates in members.values():
        chosen += stream.sample(candidates, shots) if len(candidates) >= shots else candidates
    return chosen


def sample(
    train_labels: Sequence[int], validation_labels: Sequence[int] | None, shots: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw the support set, then min(shots, 4) validation images a class from the same stream of random numbers.

    Args:
        train_labels: The label of each image of the pool.
        validation_labels: The same of the validation list; None where there is none: the validation sample is then
            drawn from what the support set leaves of the pool.
        shots: Images a class, at least 1.
        seed: Any whole number.

    Returns:
        The support set's indices into the pool; the validation sample's, into the validation list or else the pool.

    Raises:
        UserError: For fewer shots than 1.
    """
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UserError(f"shots must be a whole number of at least 1, and {shots!r} is not")
    stream = random.Random(seed)
    support = draw(range(len(train_labels)), train_labels, shots, stream)
    validation_shots = min(shots, MOST_VALIDATION_SHOTS)
    if validation_labels is not None:
        return support, draw(range(len(validation_labels)), validation_labels, validation_shots, stream)
    taken = set(support)
    rest = (index for index in range(len(train_labels)) if index not in taken)
    return support, draw(rest, train_labels, validation_shots, stream)
