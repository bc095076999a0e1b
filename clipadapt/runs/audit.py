"""Images whose label is probably wrong, by cross-validation of a linear probe on frozen features (cleanlab)."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text
from torch import Tensor

from clipadapt import config as configuration
from clipadapt.config import file_name
from clipadapt.data.tasks import UNLABELLED, Source, Split, image_names
from clipadapt.errors import DataError, UserError, join_names
from clipadapt.files import write_atomically
from clipadapt.report import progress as bars
from clipadapt.report.audit import Suspect, audit_csv, audit_page, audit_table
from clipadapt.report.tables import count_text
from clipadapt.runs.lock import hold_and_tidy
from clipadapt.runs.methods import build_backbone, usual_device
from clipadapt.runs.near_duplicates import encode
from clipadapt.runs.tasks import framing

FOLDS, SHOWN = 5, 5
DRAWS = 3
"""Draws of the folds, over which probabilities are averaged: of few images, fewer sound labels are suspect then."""
STRENGTH = 0.316
"""Inverse strength of the penalty, CLIP's linear probe's (Radford et al., ICML 2021)."""
PAGE, TABLE = "audit.html", "audit.csv"


def audit_labels(config: Mapping[str, Any], console: Console) -> list[Suspect]:
    """Print the images of a source whose label is probably wrong, and write them as a page and as CSV.

    All labelled images of all splits are taken together. A label is suspect where a probe that didn't learn from the
    image finds it less likely than the class's labels are on average (Northcutt et al., JAIR 2021, arXiv:1911.00068).

    Args:
        config: settings with `data`, `backbone` and the folder `output`.
        console: where to print.

    Raises:
        UserError: cleanlab isn't installed, or there are no two classes with two images each.
    """
    check_library()
    source = configuration.build_source(config)
    present, notes = labelled_splits(source)
    present = {name: framing(config).split(split) for name, split in present.items()}
    places = [(name, k) for name, split in present.items() for k, label in enumerate(split.labels) if label >= 0]
    clip = build_backbone(config).to(usual_device())
    with bars.images(console, len(places), "encoded", transient=True) as update:
        read, features = encode(clip, present, places, update)
    labels = np.array([present[name].labels[index] for name, index in read], dtype=int)
    kept, alone = check_classes(labels, source.class_names)
    notes += [
        *alone,
        *unread(len(places) - len(read), sum(split.labels.count(UNLABELLED) for split in present.values())),
    ]
    found = find_suspects(features[kept], labels[kept])
    suspects = [name_suspect(present, source.class_names, read[kept[row]], *more) for row, more in found]
    folder = Path(config["output"]).expanduser() / "audit" / file_name(source.name)
    save(folder, source.name, suspects, present, notes)
    for note in notes:
        console.print(Text(note), soft_wrap=True)
    if suspects:
        console.print(audit_table(suspects))
    told = (
        f"{len(suspects):,} of {len(kept):,} labels are suspect: {folder / PAGE} shows them, {TABLE} beside it has them"
    )
    console.print(Text(told), soft_wrap=True)
    return suspects


def check_library() -> None:
    """Check that cleanlab is installed, before anything is computed; raises UserError."""
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError("clipadapt data audit needs the library cleanlab: pip install 'clipadapt[audit]'") from None


def labelled_splits(source: Source) -> tuple[dict[str, Split], list[str]]:
    """Return the splits of a source that have its classes, by name, and a sentence on the others.

    Raises:
        DataError: the labels are no classes.
    """
    splits = {"train": source.train, "validation": source.validation, **source.tests}
    present = {name: split for name, split in splits.items() if split is not None and len(split)}
    if not all(isinstance(label, int) for split in present.values() for label in split.labels):
        raise DataError(f"labels of '{source.name}' are no classes, so that they can't be checked")
    others = [name for name, split in present.items() if split.class_names not in (None, source.class_names)]
    note = f"Not checked, as they have classes of their own: {join_names(others, SHOWN)}"
    return {name: split for name, split in present.items() if name not in others}, [note] if others else []


def check_classes(labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return which images are of classes with at least two, and a sentence on the other classes.

    Raises:
        DataError: there are no two such classes.
    """
    counts = Counter(labels.tolist())
    checked = [label for label, count in counts.items() if count > 1]
    if len(checked) < 2:
        raise DataError("labels can't be checked: it takes two classes with at least two images each")
    alone = [names[label] for label, count in sorted(counts.items()) if count == 1]
    one = f"Not checked, as they have one image: {join_names(alone, SHOWN)}"
    return np.flatnonzero(np.isin(labels, checked)), [one] if alone else []


def unread(broken: int, unlabelled: int) -> list[str]:
    """Return a sentence on images that can't be read, and one on those without a label."""
    numbers = ((broken, "can't be read (clipadapt data verify lists them)"), (unlabelled, "have no label"))
    return [f"Not checked, as they {why}: {count_text(count, 'image')}" for count, why in numbers if count]


def find_suspects(features: Tensor, labels: np.ndarray) -> list[tuple[int, tuple[int, float]]]:
    """Return the rows whose label is probably wrong, each with a likelier label and its probability.

    The least likely labels come first.

    Args:
        features: unit features `[N, D]` of images.
        labels: of the images `[N]`; every class has at least two.
    """
    from cleanlab.filter import find_label_issues

    classes, known = np.unique(labels, return_inverse=True)
    probabilities = out_of_sample(features.numpy(), known)
    rows = find_label_issues(known, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = probabilities.argmax(axis=1)
    return [(int(row), (int(classes[best[row]]), float(probabilities[row, best[row]]))) for row in rows]


def out_of_sample(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return probabilities `[N, C]` of each image by linear probes that learned from the other folds.

    Args:
        features: unit features `[N, D]`; they are scaled to a mean square of 1 for the probe's penalty.
        labels: from 0 to C - 1 `[N]`; every class has at least two images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    scaled = features * np.sqrt(features.shape[1])
    count = min(FOLDS, np.bincount(labels).max())
    found = []
    with warnings.catch_warnings():
        # A class with fewer images than folds has all but one of them among every fold's training images.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for draw in range(DRAWS):
            folds = StratifiedKFold(count, shuffle=True, random_state=draw)
            probe = LogisticRegression(C=STRENGTH, max_iter=1000)
            found.append(cross_val_predict(probe, scaled, labels, cv=folds, method="predict_proba"))
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def name_suspect(
    splits: Mapping[str, Split], names: Sequence[str], place: tuple[str, int], likelier: int, probability: float
) -> Suspect:
    """Return an image with its label, given its split and index, and a likelier label."""
    split, index = place
    label = names[splits[split].labels[index]]
    return Suspect(split, index, image_names(splits[split])[index], label, names[likelier], probability)


def save(
    folder: Path, title: str, suspects: Sequence[Suspect], splits: Mapping[str, Split], notes: Sequence[str]
) -> None:
    """Write the page and the CSV of suspect labels to a folder."""
    with hold_and_tidy(folder):
        write_atomically(folder / TABLE, audit_csv(suspects).encode("utf-8", "surrogateescape"))
        write_atomically(folder / PAGE, audit_page(title, suspects, splits, notes).html())
