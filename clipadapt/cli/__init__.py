"""The command line."""

from clipadapt.cli.launching import protocol
from clipadapt.cli.main import main

__all__ = ["main", "protocol"]
