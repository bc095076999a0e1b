"""One thing done to many images, several at once; no more than the results is held, however many there are."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

AT_ONCE = 16
"""Threads: more than there are cores, as they wait for disks and networks."""
CHUNK = 64
"""Images that a thread takes at a time."""


def in_threads(do: Callable[[int], Result], count: int, update: Callable[[int], None] | None = None) -> list[Result]:
    """What `do` makes of the numbers from 0 to `count`, in their order.

    Args:
        do: called in several threads.
        count: of the numbers.
        update: told how many more are done, now and then.
    """

    def of_chunk(first: int) -> list[Result]:
        return [do(number) for number in range(first, min(first + CHUNK, count))]

    with ThreadPoolExecutor(AT_ONCE) as threads:
        results: list[Result] = []
        for chunk in threads.map(of_chunk, range(0, count, CHUNK)):
            results += chunk
            if update is not None:
                update(len(chunk))
    return results
