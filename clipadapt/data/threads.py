"""Maps a function over many images in several threads, holding only the results in memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

NUM_THREADS = 16
"""More threads than cores, since they wait for disks and networks."""
CHUNK_SIZE = 64
"""Images per thread and turn."""


def map_in_threads(
    function: Callable[[int], Result], count: int, update: Callable[[int], None] | None = None
) -> list[Result]:
    """Return the results of a function for the numbers from 0 to `count`, in their order.

    Args:
        function: Called in several threads.
        count: How many numbers.
        update: Called with the number of results that are new since the last call.
    """

    def of_chunk(first: int) -> list[Result]:
        return [function(number) for number in range(first, min(first + CHUNK_SIZE, count))]

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        results: list[Result] = []
        for chunk in threads.map(of_chunk, range(0, count, CHUNK_SIZE)):
            results += chunk
            if update is not None:
                update(len(chunk))
    return results
