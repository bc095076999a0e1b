"""Tasks: class names, templates, few-shot samples, splits, and where the images come from.

Importing it is quick: what needs torch (transforms) or draws (drawn) is imported by name.
"""

from clipadapt.data.broken import check, images_used, without_broken
from clipadapt.data.few_shot import make_task
from clipadapt.data.images import LazyImages, open_image, to_rgb
from clipadapt.data.tasks import Source, Split, Task

__all__ = [
    "LazyImages",
    "Source",
    "Split",
    "Task",
    "check",
    "images_used",
    "make_task",
    "open_image",
    "to_rgb",
    "without_broken",
]
