"""Images that can't be read: checked before a run starts and reported together, or left out and counted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from clipadapt.data.folders import lazy_images
from clipadapt.data.images import LazyImages
from clipadapt.data.tasks import Split, Task
from clipadapt.data.threads import map_in_threads
from clipadapt.errors import DataError, join_names
from clipadapt.notices import notice

MAX_LISTED, SHOWN = 50, 5

UpdateProgress = Callable[[int], None]


def find_broken(images: Sequence[Image.Image], decode: bool, update: UpdateProgress | None = None) -> dict[int, str]:
    """Find the images that can't be read, and return an error message for each, by index.

    Args:
        images: The images.
        decode: Whether to decode each image. Otherwise only the headers of image files are verified; images that are
            not read from files are skipped.
        update: Called now and then with the number of images checked since the last call.
    """
    if decode:
        load_or_verify: Callable[[int], object] = images.__getitem__
    elif isinstance(images, LazyImages) and images.verify is not None:
        load_or_verify = partial(verify_item, images.verify, images.items)
    else:
        return {}

    def message(index: int) -> str | None:
        try:
            load_or_verify(index)
        except DataError as error:
            return str(error)
        return None

    found = map_in_threads(message, len(images), update)
    return {index: text for index, text in enumerate(found) if text}


def verify_item(verify: Callable[[Any], object], items: Sequence[Any], index: int) -> None:
    """Verify the item at an index."""
    verify(items[index])


def used_splits(task: Task, pool: bool) -> dict[str, Split]:
    """Return the splits that a run uses, by name: the pool only if `pool` is true or the pool has no labels."""
    pooled = {"pool": task.pool} if task.pool is not None and (pool or not task.labelled) else {}
    return {"support": task.support, "validation": task.validation, **pooled, **task.tests}


def count_used_images(task: Task, pool: bool = False) -> int:
    """Return how many images `check` and `without_broken` check; an image in several splits counts in each."""
    return sum(map(len, used_splits(task, pool).values()))


def check(task: Task, pool: bool = False, update: UpdateProgress | None = None) -> None:
    """Check a task's image files before a run: decode support and validation images, verify the headers of the others.

    Args:
        task: The task of the run.
        pool: Whether the run uses all images of the pool even if the pool has labels.
        update: Called now and then with the number of images checked since the last call.

    Raises:
        DataError: Files can't be read; the message lists the first fifty.
    """
    bad: dict[str, None] = {}
    for name, split in used_splits(task, pool).items():
        decode = name in ("support", "validation") and has_verifier(split.images)
        bad |= dict.fromkeys(find_broken(split.images, decode, update).values())
    if bad:
        raise DataError(broken_message([*bad]))


def has_verifier(images: Sequence[Image.Image]) -> bool:
    """Return whether images are read from files, which may be broken."""
    return isinstance(images, LazyImages) and images.verify is not None


def broken_message(
    bad: Sequence[str],
    leave_out: str = "leave them out of the run with task.skip_broken=true",
    list_all: str = "; clipadapt data verify with the same data lists all",
) -> str:
    """Return an error message with one line for each broken file, and how to go on.

    Args:
        bad: A sentence for each broken file.
        leave_out: How to leave them out.
        list_all: How to list them all.
    """
    images = "an image" if len(bad) == 1 else f"{len(bad):,} images"
    lines = [
        f"{images} can't be used: mend or remove them, or {leave_out}",
        *(f"  - {text}" for text in bad[:MAX_LISTED]),
    ]
    if len(bad) > MAX_LISTED:
        lines.append(f"  and {len(bad) - MAX_LISTED:,} more{list_all}")
    return "\n".join(lines)


def without_broken(task: Task, pool: bool = False, update: UpdateProgress | None = None) -> Task:
    """Return the task without its broken images, and warn with their number in each split; decodes every image.

    The few-shot sample is drawn before: a broken image of the support set is not replaced by another one.

    Args:
        task: The task of the run.
        pool: Whether the run uses all images of the pool even if the pool has labels.
        update: Called now and then with the number of images checked since the last call.

    Raises:
        DataError: A class would have no images left in the support set, in the pool or in a test set.
    """
    changes: dict[str, Any] = {"tests": {}, "left_out": dict(task.left_out)}
    for name, split in used_splits(task, pool).items():
        bad = find_broken(split.images, True, update)
        kept = [index for index in range(len(split)) if index not in bad]
        sound = split.select(kept) if bad else split
        if name != "validation":
            check_emptied(task, name, split, sound)
        if name in task.tests:
            changes["tests"][name] = sound
        else:
            indices = getattr(task, f"{name}_indices")
            changes |= {name: sound, f"{name}_indices": [indices[index] for index in kept]}
        if bad:
            changes["left_out"][name] = [*bad.values()]
            text = f"{task.name}: {len(bad):,} of {len(split):,} images are broken, and left out of '{name}'"
            notice(text)
    return replace(task, **changes)


def check_emptied(task: Task, name: str, before: Split, after: Split) -> None:
    """Check that no class has lost all its images; raises DataError."""
    names = before.class_names or task.class_names
    lost = sorted({*before.labels} - {*after.labels})
    if lost:
        classes = f" of {', '.join(names[label] for label in lost)}" if before.labelled else ""
        raise DataError(
            f"{task.name}: all images in '{name}'{classes} are broken: mend or replace them (clipadapt data verify "
            "with the same data lists them)"
        )


def readable(paths: Sequence[str], skip_broken: bool) -> list[str]:
    """Return the paths of image files to predict, without those of broken files if they are to be skipped.

    Args:
        paths: The paths.
        skip_broken: Whether broken files are left out, and warned of with their number; every image is then decoded.
            Otherwise only headers and last bytes are checked.

    Raises:
        DataError: There are broken files and they are not to be skipped, or all files are broken.
    """
    bad = find_broken(lazy_images(paths), skip_broken)
    if bad and (not skip_broken or len(bad) == len(paths)):
        advice = "there is nothing to predict" if skip_broken else "leave them out with skip_broken=true"
        raise DataError(broken_message([*bad.values()], advice, ""))
    if bad:
        shown = join_names([*bad.values()], SHOWN)
        notice(f"{len(bad):,} of {len(paths):,} images are broken, and left out: {shown}")
    return [path for number, path in enumerate(paths) if number not in bad]
