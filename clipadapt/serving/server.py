"""The server's port, and its life from the start to a signal that ends it."""

import errno
import ipaddress
import os
import socket
from collections.abc import Callable

from clipadapt.errors import UserError
from clipadapt.runs.predictor import Predictor
from clipadapt.serving.limits import Limits

DRAIN_SECONDS, BACKLOG = 30, 512
"""How long requests are still answered after a signal to end, and how many connections may wait to be accepted."""

OTHERS_ANSWERS = "so that one client's images would change another's answers"
WHY_NOT_SERVED = {
    "batch": f"adapts to batches of images, {OTHERS_ANSWERS}",
    "stream": f"adapts along a stream of images, {OTHERS_ANSWERS}",
    "set": "answers the images of a whole set together, and a server gets them one by one",
}
"""Why a method isn't served, by what it adapts to."""


def check_libraries() -> None:
    """Check that the libraries of a server are installed; raises UserError."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"clipadapt serve needs the library {error.name}: pip install 'clipadapt[serve]'") from None


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that holds a port; 0 takes any that is free.

    Raises:
        UserError: the port is in use or needs rights, or this machine doesn't have the address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"host={host} is no address of this machine: {error.strerror}") from error
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is in use: end what uses it, or take another with port=…"
            ) from error
        raise UserError(f"host={host} port={port} can't be used: {os.strerror(error.errno or 0)}") from error
    return opened


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_predictor(predictor: Predictor) -> None:
    """Check that answers of a predictor don't depend on the images of other requests.

    Raises:
        UserError: it adapts along a stream of images, to batches or a whole set of them, or has no classes.
    """
    if not predictor.kind.probabilities:
        raise UserError("this run answers with no classes, and clipadapt serve answers with classes alone")
    why = None if predictor.test_time is None else WHY_NOT_SERVED.get(predictor.test_time.adapts_to)
    if why is not None:
        raise UserError(f"this run {why}: serve a run that doesn't, or use clipadapt predict on a folder")


def serve(predictor: Predictor, opened: socket.socket, limits: Limits, started: Callable[[], object]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; requests that were taken are then answered, for half a minute at most.

    Args:
        predictor: of a finished run.
        opened: the socket, from `open_port`.
        limits: on requests and batches.
        started: called before the first request is taken.

    Raises:
        UserError: as of `check_predictor`.
    """
    check_predictor(predictor)
    import uvicorn

    from clipadapt.serving.application import make_application

    application = make_application(predictor, limits)
    settings = uvicorn.Config(
        application, access_log=False, log_level="warning", timeout_graceful_shutdown=DRAIN_SECONDS, server_header=False
    )
    started()
    try:
        uvicorn.Server(settings).run(sockets=[opened])
    except KeyboardInterrupt:  # uvicorn has ended in order, and raises the signal again
        return
