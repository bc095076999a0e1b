"""Batches of images of several requests, answered by one thread in the order in which they came."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from clipadapt.serving.limits import BUSY, Limits, RefusedRequest


@dataclass(frozen=True, eq=False)
class _Waiting:
    """An image that waits for its answer.

    Attributes:
        image: what the predictor has read of it.
        answer: receives the answer `[...]`.
    """

    image: Tensor
    answer: "asyncio.Future[Tensor]"


class Batcher:
    """Collects images of requests into batches.

    Args:
        answer: maps the images of a batch to their answers `[B, ...]`; runs in a thread of its own.
        limits: on the queue and on batches.
        batch_done: called with the size of each batch.

    Attributes:
        queued: number of images that are accepted and not answered yet.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Tensor]], Tensor],
        limits: Limits,
        batch_done: Callable[[int], object] = lambda size: None,
    ) -> None:
        self.queued = 0
        self._answer, self._limits, self._batch_done = answer, limits, batch_done
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "clipadapt-model")

    @contextmanager
    def reserve(self, images: int) -> Iterator[None]:
        """Take places in the queue while a request of so many images is read and answered.

        Raises:
            RefusedRequest: the queue has no room for them.
        """
        if self.queued + images > self._limits.max_queue:
            raise RefusedRequest(
                f"the server is busy: {self.queued:,} images wait, and {self._limits.max_queue:,} may; try again later",
                BUSY,
            )
        self.queued += images
        try:
            yield
        finally:
            self.queued -= images

    async def submit(self, images: Sequence[Tensor]) -> Tensor:
        """Return the answers `[B, ...]` to the images of a request, in their order."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(image, loop.create_future()) for image in images]
        for one in waiting:
            self._queue.put_nowait(one)
        return torch.stack(await asyncio.gather(*(one.answer for one in waiting)))

    async def run(self) -> None:
        """Answer batches until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            try:
                answers = await loop.run_in_executor(self._thread, self._answer, [one.image for one in batch])
            except Exception as error:  # a fault of ours or a full memory: of these requests, not of the server
                _settle(batch, error=error)
            else:
                _settle(batch, answers)
            self._batch_done(len(batch))

    def close(self) -> None:
        """End the thread, after the batch that it computes."""
        self._thread.shutdown()

    async def _next_batch(self) -> list[_Waiting]:
        """Return the images that wait; the first one waits for others for a while, up to a full batch."""
        loop, batch = asyncio.get_running_loop(), [await self._queue.get()]
        until = loop.time() + self._limits.max_wait_ms / 1000
        while len(batch) < self._limits.max_batch:
            if self._queue.empty() and loop.time() >= until:
                break
            try:
                async with asyncio.timeout_at(max(until, loop.time())) if self._queue.empty() else _at_once():
                    batch.append(await self._queue.get())
            except TimeoutError:
                break
        return batch


def _at_once() -> asyncio.Timeout:
    """Return a context without a limit of time."""
    return asyncio.timeout(None)


def _settle(batch: Sequence[_Waiting], answers: Tensor | None = None, error: Exception | None = None) -> None:
    """Hand the answers of a batch, or the error, to the requests that still wait."""
    for place, one in enumerate(batch):
        if one.answer.done():  # the request was given up
            continue
        if error is not None or answers is None:
            one.answer.set_exception(error or RuntimeError("no answers"))
        else:
            one.answer.set_result(answers[place])
