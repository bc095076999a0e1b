"""Images that can't be read: checked before a run starts and reported together, or left out and counted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from PIL import Image

from clipadapt.data.images import LazyImages
from clipadapt.data.pixels import find_doubt
from clipadapt.data.spares import draw_spares
from clipadapt.data.tasks import Split, Task
from clipadapt.data.threads import map_in_threads
from clipadapt.errors import DataError, join_names
from clipadapt.notices import notice

MAX_LISTED, SHOWN = 50, 5
MAX_LOOKED_AT = 200
"""Images of a split that are decoded because of their headers, where the others are verified by these alone."""

UpdateProgress = Callable[[int], None]


class Findings(NamedTuple):
    """Problems of images by index: a message for each that can't be read, a phrase for each without content."""

    broken: dict[int, str]
    doubtful: dict[int, str]


def find_broken(images: Sequence[Image.Image], decode: bool, update: UpdateProgress | None = None) -> dict[int, str]:
    """Return a message for each image that can't be read, by index; arguments as in `inspect`."""
    return inspect(images, decode, update).broken


def inspect(images: Sequence[Image.Image], decode: bool, update: UpdateProgress | None = None) -> Findings:
    """Find the images that can't be read, and image files in which there is nothing to see.

    Args:
        images: The images.
        decode: Whether to decode each image. Otherwise only the headers of image files are verified, and a few of those
            decoded whose way to RGB may leave nothing to see; images that are not read from files are skipped.
        update: Called now and then with the number of images checked since the last call.
    """
    files = isinstance(images, LazyImages) and images.verify is not None
    if not decode and not files:
        return Findings({}, {})
    found = map_in_threads(partial(look_at if decode else verify_item, images, files), len(images), update)
    broken = {index: str(each) for index, each in enumerate(found) if isinstance(each, DataError)}
    if decode:
        return Findings(broken, {index: each for index, each in enumerate(found) if isinstance(each, str)})
    chosen = [index for index, each in enumerate(found) if each is True][:MAX_LOOKED_AT]
    looked = map_in_threads(lambda place: look_at(images, True, chosen[place]), len(chosen))
    return Findings(
        broken | {index: str(each) for index, each in zip(chosen, looked, strict=True) if isinstance(each, DataError)},
        {index: each for index, each in zip(chosen, looked, strict=True) if isinstance(each, str)},
    )


def look_at(images: Sequence[Image.Image], files: bool, index: int) -> DataError | str | None:
    """Decode an image; return its error, or a phrase if it is from a file and there is nothing to see in it."""
    try:
        image = images[index]
    except DataError as error:
        return error
    return find_doubt(image) if files else None


def verify_item(images: Any, files: bool, index: int) -> object:
    """Verify the image at an index; return its error, or whether it should be looked at."""
    try:
        return images.verify(images.items[index]) if images.verify else False
    except DataError as error:
        return error


def describe_doubts(images: Sequence[Image.Image], doubtful: Mapping[int, str]) -> list[str]:
    """Return a sentence on image files in which there is nothing to see; an empty list if there are none."""
    if not doubtful or not isinstance(images, LazyImages):
        return []
    names = [f"{images.items[index]} ({phrase})" for index, phrase in doubtful.items()]
    count = "one image has" if len(names) == 1 else f"{len(names):,} images have"
    return [f"{count} nothing to see in RGB: {join_names(names, SHOWN)}"]


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
    doubts: list[str] = []
    for name, split in used_splits(task, pool).items():
        decode = name in ("support", "validation") and has_verifier(split.images)
        found = inspect(split.images, decode, update)
        bad |= dict.fromkeys(found.broken.values())
        doubts += describe_doubts(split.images, found.doubtful)
    if bad:
        raise DataError(broken_message([*bad]))
    for text in dict.fromkeys(doubts):
        notice(f"{task.name}: {text}")


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
    images, them = ("an image", "it") if len(bad) == 1 else (f"{len(bad):,} images", "them")
    lines = [
        f"{images} can't be used: mend or remove {them}, or {leave_out.replace('them', them)}",
        *(f"  - {text}" for text in bad[:MAX_LISTED]),
    ]
    if len(bad) > MAX_LISTED:
        lines.append(f"  and {len(bad) - MAX_LISTED:,} more{list_all}")
    return "\n".join(lines)


def without_broken(task: Task, pool: bool = False, update: UpdateProgress | None = None) -> Task:
    """Return the task without its broken images, and warn with their number in each split; decodes every image.

    A broken image of the support or validation set is replaced by another one of its class if there is one to spare.

    Args:
        task: The task of the run.
        pool: Whether the run uses all images of the pool even if the pool has labels.
        update: Called now and then with the number of images checked since the last call.

    Raises:
        DataError: A class would have no images left in the support set, in the pool or in a test set.
    """
    changes: dict[str, Any] = {"tests": {}, "left_out": dict(task.left_out)}
    for name in used_splits(task, pool):
        split = used_splits(task, pool)[name]
        bad, doubtful = inspect(split.images, True, update)
        for text in describe_doubts(split.images, doubtful):
            notice(f"{task.name}: {text}")
        replaced = set[int]()
        if bad and name in ("support", "validation"):
            task, replaced = draw_spares(task, name, [*bad])
        now = used_splits(task, pool)[name]
        kept = [index for index in range(len(now)) if index not in bad or index in replaced]
        sound = now.select(kept) if len(kept) < len(now) else now
        if name != "validation":
            check_emptied(task, name, split, sound)
        if name in task.tests:
            changes["tests"][name] = sound
        else:
            indices = getattr(task, f"{name}_indices")
            changes |= {name: sound, f"{name}_indices": [indices[index] for index in kept]}
        if bad:
            changes["left_out"][name] = [*bad.values()]
            others = f"; {len(replaced):,} others of their classes are in their place" if replaced else ""
            are = "is" if len(bad) == 1 else "are"
            notice(f"{task.name}: {len(bad):,} of {len(split):,} images {are} broken, and left out of '{name}'{others}")
    return replace(task, **changes)


def check_emptied(task: Task, name: str, before: Split, after: Split) -> None:
    """Check that no class has lost all its images; raises DataError."""
    names = before.class_names or task.class_names
    lost = sorted({*before.labels} - {*after.labels})
    if lost:
        classes = f" of {join_names([names[label] for label in lost], SHOWN)}" if before.labelled else ""
        raise DataError(
            f"{task.name}: all images in '{name}'{classes} are broken: mend or replace them (clipadapt data verify "
            "with the same data lists them)"
        )
