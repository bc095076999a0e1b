"""Quiet and offline-safe download of weights and tokenizers."""

import contextlib
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator

import huggingface_hub


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence open_clip's progress messages, which go to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def hub() -> Iterator[bool]:
    """Put the Hugging Face hub in offline mode if there is no network, which saves half a minute of retries.

    Yields:
        Whether the hub is offline.
    """
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    offline = before or not reachable(huggingface_hub.constants.ENDPOINT)
    huggingface_hub.constants.HF_HUB_OFFLINE = offline
    try:
        yield offline
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


# Unlike data/network.py, which sends a request to the hub and waits for its response: weights are mostly in the cache,
# and loading them must not wait for a request, nor fail if the hub is slow. A DNS lookup takes milliseconds.
def reachable(url: str) -> bool:
    """Return whether an address's host name resolves; True with a proxy, which resolves names itself."""
    if urllib.request.getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urllib.parse.urlsplit(url).hostname, 443))
    except OSError:
        return False
