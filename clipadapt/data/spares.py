"""Spare images, drawn in place of broken ones of a support or validation set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from clipadapt.data.duplicates import can_be_read
from clipadapt.data.seeds import hash_seed
from clipadapt.data.tasks import Split, Task

POOL, TEST = "pool", "test"


def draw_spares(task: Task, name: str, broken: Sequence[int]) -> tuple[Task, set[int]]:
    """Return the task with other images of their classes in place of broken ones, and the indices that were replaced.

    Spares are the pool's images outside the support and validation sets, then those of a test set that is what these
    leave of the pool, which then lacks them. The same task gets the same spares.

    Args:
        task: The task.
        name: "support" or "validation".
        broken: Indices of the broken images in that split.
    """
    if task.pool is None or (name == "validation" and task.validation_listed):
        return task, set()
    split: Split = getattr(task, name)
    indices: list[int] = [*getattr(task, f"{name}_indices")]
    spares = {label: list_spares(task, name, label) for label in {split.labels[index] for index in broken}}
    images, moved, replaced = [*range(len(split))], dict[int, Split](), set[int]()
    for index in broken:
        for number, image in spares[split.labels[index]]:
            moved[index], indices[index] = image, number
            replaced.add(index)
            break
    if not replaced:
        return task, replaced
    chosen = join_splits(split, images, moved)
    taken = {indices[index] for index in replaced}
    changes: dict[str, Any] = {name: chosen, f"{name}_indices": indices}
    return without_test_images(replace(task, **changes), taken), replaced


def list_spares(task: Task, name: str, label: int) -> Iterator[tuple[int, Split]]:
    """Yield the spare images of a class that can be read, each once, with its index into the source's pool."""
    assert task.pool is not None, "there are no spares without a pool"
    used = {*task.support_indices, *(() if task.validation_listed else task.validation_indices)}
    stream = Random(hash_seed(task.seed, label, ord(name[0])))
    places = {POOL: (task.pool, task.pool_indices), TEST: (task.tests.get(TEST), task.test_indices)}
    for split, indices in places.values():
        found = [place for place, index in enumerate(indices) if index not in used]
        if split is None:
            continue
        found = [place for place in found if split.labels[place] == label]
        for place in stream.sample(found, len(found)):
            if can_be_read(split, place):
                yield indices[place], split.select([place])


def join_splits(split: Split, order: Sequence[int], moved: Mapping[int, Split]) -> Split:
    """Return a split with other images at some places; both are of one source, and loaded in one way."""
    images = [moved[index].images if index in moved else split.select([index]).images for index in order]
    items = [item for each in images for item in each.items]  # type: ignore[attr-defined]
    return replace(split, images=replace(images[0], items=items))  # type: ignore[type-var]


def without_test_images(task: Task, taken: set[int]) -> Task:
    """Return the task without the images of its test set that are in the support set now; the pool has them."""
    kept = [place for place, index in enumerate(task.test_indices) if index not in taken]
    if len(kept) == len(task.test_indices):
        return task
    tests = {**task.tests, TEST: task.tests[TEST].select(kept)}
    return replace(task, tests=tests, test_indices=[task.test_indices[place] for place in kept])
