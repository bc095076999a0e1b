"""Images that can't be read: found before a run starts, and all told at once, or left out and counted."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from clipadapt.data.images import LazyImages
from clipadapt.data.tasks import Split, Task
from clipadapt.data.threads import in_threads
from clipadapt.errors import DataError

LONGEST_LISTING = 50

Advance = Callable[[int], None]


def faults(images: Sequence[Image.Image], decode: bool, update: Advance | None = None) -> dict[int, str]:
    """What is wrong with images, a sentence each, by their place.

    Args:
        images: The images.
        decode: Whether to load each image whole. Else they are only verified, as Pictures can be whose files have
            headers; others aren't looked at.
        update: Told how many more were looked at, now and then.
    """
    if decode:
        look: Callable[[int], object] = images.__getitem__
    elif isinstance(images, LazyImages) and images.verify is not None:
        look = partial(call_with, images.verify, images.items)
    else:
        return {}

    def fault(place: int) -> str | None:
        try:
            look(place)
        except DataError as error:
            return str(error)
        return None

    found = in_threads(fault, len(images), update)
    return {place: message for place, message in enumerate(found) if message}


def call_with(look: Callable[[Any], object], items: Sequence[Any], place: int) -> None:
    """Look at the item in a place."""
    look(items[place])


def used(task: Task, pool: bool) -> dict[str, Split]:
    """What a run looks at of a task, by name: the pool only where it is asked for, or has no labels."""
    pooled = {"pool": task.pool} if task.pool is not None and (pool or not task.labelled) else {}
    return {"support": task.support, "validation": task.validation, **pooled, **task.tests}


def images_used(task: Task, pool: bool = False) -> int:
    """How many images `check` and `without_broken` look at, those of several splits counted in each."""
    return sum(map(len, used(task, pool).values()))


def check(task: Task, pool: bool = False, update: Advance | None = None) -> None:
    """Look at a task's image files before work begins: decode support and validation, verify the others.

    Args:
        task: What the run is about.
        pool: Whether the run looks at all images of the pool though they have labels.
        update: Told how many more were looked at, now and then.

    Raises:
        DataError: When files can't be read; it lists them, the first fifty where there are more.
    """
    bad: dict[str, None] = {}
    for name, split in used(task, pool).items():
        decode = name in ("support", "validation") and is_verified(split.images)
        bad |= dict.fromkeys(faults(split.images, decode, update).values())
    if bad:
        raise DataError(listing([*bad]))


def is_verified(images: Sequence[Image.Image]) -> bool:
    """Whether images are from files, which may be broken."""
    return isinstance(images, LazyImages) and images.verify is not None


def listing(bad: Sequence[str]) -> str:
    """What is wrong with files, one a line, and what to do about it."""
    images = "an image" if len(bad) == 1 else f"{len(bad):,} images"
    lines = [
        f"{images} can't be used: mend or remove them, or leave them out of the run with task.skip_broken=true",
        *(f"  - {text}" for text in bad[:LONGEST_LISTING]),
    ]
    if len(bad) > LONGEST_LISTING:
        lines.append(f"  and {len(bad) - LONGEST_LISTING:,} more; clipadapt data verify with the same data lists all")
    return "\n".join(lines)


def without_broken(task: Task, pool: bool = False, update: Advance | None = None) -> Task:
    """The task without the images that can't be read, each of which is decoded; one warning counts them for each split.

    The sample was drawn before: a broken image of the support set isn't made up for by another one.

    Args:
        task: What the run is about.
        pool: Whether the run looks at all images of the pool though they have labels.
        update: Told how many more were looked at, now and then.

    Raises:
        DataError: Where nothing would be left of a class in the support set or in a test set.
    """
    changes: dict[str, Any] = {"tests": {}, "left_out": dict(task.left_out)}
    for name, split in used(task, pool).items():
        bad = faults(split.images, True, update)
        kept = [place for place in range(len(split)) if place not in bad]
        sound = split.select(kept) if bad else split
        if name != "validation":
            check_emptied(task, name, split, sound)
        if name in task.tests:
            changes["tests"][name] = sound
        else:
            indices = getattr(task, f"{name}_indices")
            changes |= {name: sound, f"{name}_indices": [indices[place] for place in kept]}
        if bad:
            changes["left_out"][name] = [*bad.values()]
            said = f"{task.name}: {len(bad):,} of {len(split):,} images are broken, and left out of '{name}'"
            warnings.warn(said, UserWarning, stacklevel=2)
    return replace(task, **changes)


def check_emptied(task: Task, name: str, before: Split, after: Split) -> None:
    """Raise a DataError where classes of a split have lost all their images."""
    names = before.class_names or task.class_names
    lost = sorted({*before.labels} - {*after.labels})
    if lost:
        classes = f" of {', '.join(names[label] for label in lost)}" if before.labelled else ""
        raise DataError(
            f"{task.name}: all images in '{name}'{classes} are broken: mend or replace them (clipadapt data verify "
            "with the same data lists them)"
        )
