"""Tasks: class names, templates, few-shot samples, splits, and the sources of images.

The import is quick: modules that need torch (transforms) or draw images (drawn) are imported by their own names.
"""

from clipadapt.data.broken import check, count_used_images, without_broken
from clipadapt.data.few_shot import make_task
from clipadapt.data.images import LazyImages, open_image, to_rgb
from clipadapt.data.tasks import Source, Split, Task

__all__ = [
    "LazyImages",
    "Source",
    "Split",
    "Task",
    "check",
    "count_used_images",
    "make_task",
    "open_image",
    "to_rgb",
    "without_broken",
]
