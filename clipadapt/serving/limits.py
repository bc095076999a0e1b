"""Limits on what a server takes, and the errors of requests that are beyond them."""

from dataclasses import dataclass

from clipadapt.errors import UserError

BAD_REQUEST, TIMEOUT, TOO_LARGE, WRONG_TYPE, BUSY = 400, 408, 413, 415, 503


@dataclass(frozen=True)
class Limits:
    """Limits on requests, and sizes of batches.

    Attributes:
        max_images: images of a request.
        max_request_mb: megabytes of a request.
        max_pixels: pixels of an image; Pillow's own limit holds beside it.
        max_queue: images that are accepted and not answered yet, of all requests together.
        max_batch: images of all requests that go through the model together.
        max_wait_ms: milliseconds that an image waits for others at most, if the model is free.
    """

    max_images: int = 64
    max_request_mb: int = 32
    max_pixels: int = 50_000_000
    max_queue: int = 256
    max_batch: int = 64
    max_wait_ms: int = 5

    def __post_init__(self) -> None:
        """Check that a request can be within the queue.

        Raises:
            UserError: more images are allowed in a request than in the queue.
        """
        if self.max_images > self.max_queue:
            raise UserError(
                f"max_images={self.max_images} is beyond max_queue={self.max_queue}, so that such a request could "
                "never be answered: raise max_queue or lower max_images"
            )


class RefusedRequest(UserError):
    """A request that isn't answered.

    Attributes:
        status: the status code of HTTP.
    """

    def __init__(self, message: str, status: int = BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = status
