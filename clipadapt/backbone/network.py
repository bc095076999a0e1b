"""What fetching weights and tokenizers should and should not do to the user."""

import contextlib
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

import huggingface_hub


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip's progress messages, which go to the root logger, to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def hub() -> Iterator[bool]:
    """Without a network, have the Hugging Face hub look in its cache at once instead of trying for half a minute.

    Yields:
        Whether there is no network.
    """
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    offline = before or not reachable(huggingface_hub.constants.ENDPOINT)
    huggingface_hub.constants.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


# Not the question of data/network.py, which asks the hub itself and waits for its answer: weights are mostly in the
# cache, and loading them must not wait for a request, nor fail where the hub is slow. A lookup takes milliseconds.
def reachable(url: str) -> bool:
    """Whether an address can be looked up, or a proxy will have to."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, 443))
    except OSError:
        return False
