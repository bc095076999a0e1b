"""A web server that answers images with the predictor of a finished run."""

from clipadapt.serving.limits import Limits
from clipadapt.serving.server import open_port, serve

__all__ = ["Limits", "open_port", "serve"]
