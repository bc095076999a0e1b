"""A quick check that the Hugging Face hub can be reached: its own client retries for half a minute before it fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ATTEMPTS = 2

CACHE_ONLY: ContextVar[bool] = ContextVar("CACHE_ONLY", default=False)


@contextmanager
def cache_only() -> Iterator[None]:
    """Fetch nothing from the hub within the `with` block: for data that a run names, not the user."""
    token = CACHE_ONLY.set(True)
    try:
        yield
    finally:
        CACHE_ONLY.reset(token)


# Not backbone/network.py's question, which only looks the name up: a data set is checked against the hub in any case, a
# request more costs little, and a hub that has an address but doesn't answer is told with its reason.
def find_connection_error(endpoint: str | None = None) -> str | None:
    """Return the reason why the hub, or another one, can't be reached; None if it answers with any status."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if CACHE_ONLY.get():
        return "a run's own word fetches nothing: name the data yourself, with data=huggingface data.name=…"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reason = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt)
        try:
            get_session().head(endpoint or constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return None
        except Exception as error:  # the client's own, of httpx or requests by its version
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return reason


@contextmanager
def offline() -> Iterator[None]:
    """Make the hub's libraries use only their caches, within the `with` block."""
    import datasets
    from huggingface_hub import constants

    places: list[Any] = [datasets.config, constants]
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = True
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
