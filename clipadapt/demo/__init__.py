"""A page in the browser: drop images, and one or several finished runs answer side by side."""

from clipadapt.demo.answers import Demo
from clipadapt.demo.shown_run import ShownRun, load_runs

__all__ = ["Demo", "ShownRun", "load_runs"]
