"""Names of ImageNet's classes, and the classes that a copy of it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from clipadapt.data.labels import DataWarning
from clipadapt.data.prepared import read_lines
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, join_names
from clipadapt.notices import notice

SHIPPED = Path(__file__).with_name("names") / "imagenet.yaml"
SHOWN_CLASSES = 5


@dataclass(frozen=True)
class IncompleteSource(Source):
    """A data set that lacks some of the classes that belong to it.

    Attributes:
        missing_classes: The classes without images, as "tench (n01440764)", by split.
    """

    missing_classes: dict[str, list[str]] = field(default_factory=dict)

    def describe_missing(self) -> list[str]:
        """Return a sentence for each split that lacks classes."""
        return [
            f"no images in '{split}' of {describe_some(classes)}" for split, classes in self.missing_classes.items()
        ]


@dataclass(frozen=True)
class ImageNetClasses:
    """The classes that a folder may belong to.

    Attributes:
        names: The class names by WordNet id.
        where: Their origin, for messages.
    """

    names: Mapping[str, str]
    where: str

    @classmethod
    def read(cls, folder: Path) -> "ImageNetClasses":
        """Read the classes from classnames.txt in a folder, or else take ImageNet's, with CLIP's names.

        Raises:
            DataError: The file can't be read.
        """
        file = folder / "classnames.txt"
        if file.is_file():
            return cls(dict(parse_line(line, file) for line in read_lines(file)), f"the classes in '{file}'")
        return cls(load_clip_names(), "ImageNet's 1,000 classes")

    @cached_property
    def ids(self) -> list[str]:
        """The WordNet ids in the order of ImageNet's labels."""
        return sorted(self.names)

    def to_wordnet_id(self, folder: str) -> str:
        """Return the WordNet id of a folder, whose name is either the id or ImageNet's label."""
        return self.ids[int(folder)] if folder.isdecimal() and int(folder) < len(self.ids) else folder

    def find_class_names(self, folders: Sequence[str], place: Path) -> list[str]:
        """Return the class names of folders.

        Args:
            folders: Names of the folders.
            place: The folder they are in, for messages.

        Raises:
            DataError: Some folders are not classes.
        """
        ids = [self.to_wordnet_id(folder) for folder in folders]
        strangers = [folder for folder, wordnet_id in zip(folders, ids, strict=True) if wordnet_id not in self.names]
        if strangers:
            found = join_names(strangers, SHOWN_CLASSES)
            raise DataError(f"'{place}' has folders that aren't WordNet ids of {self.where}: {found}")
        return [self.names[wordnet_id] for wordnet_id in ids]

    def mark_missing_classes(self, source: Source, folders: Sequence[str], splits: Mapping[str, Split]) -> Source:
        """Return the source, as an IncompleteSource if splits lack classes; warn of classes that have no folder.

        A split that lacks some of the source's own classes is reported by `make_task`.

        Args:
            source: A data set that should have all the classes.
            folders: Names of its class folders, in the order of its labels.
            splits: The splits that should have all the classes, by name.
        """
        ids = [self.to_wordnet_id(folder) for folder in folders]
        present = {name: {ids[label] for label in {*split.labels}} for name, split in splits.items()}
        missing_classes = {name: self.describe({*self.ids} - there) for name, there in present.items()}
        if not any(missing_classes.values()):
            return source
        if unknown := self.describe({*self.ids} - {*ids}):
            text = (
                f"{source.name}: of {self.where} only {len(ids):,} are there, and no images of {describe_some(unknown)}"
            )
            notice(text, DataWarning, stacklevel=3)
        given = {one.name: getattr(source, one.name) for one in fields(source)}
        return IncompleteSource(
            **given, missing_classes={name: classes for name, classes in missing_classes.items() if classes}
        )

    def describe(self, ids: set[str]) -> list[str]:
        """Return classes as text, "tench (n01440764)", in the order of their labels."""
        return [f"{self.names[wordnet_id]} ({wordnet_id})" for wordnet_id in sorted(ids)]


def describe_some(classes: Sequence[str]) -> str:
    """Join a few of the classes, with their number if there are more."""
    count = f"{len(classes):,} classes: " if len(classes) > SHOWN_CLASSES else ""
    return count + join_names(classes, SHOWN_CLASSES)


def parse_line(line: str, file: Path) -> tuple[str, str]:
    """Split a line of classnames.txt into the WordNet id and the name.

    Raises:
        DataError: The line has one word only.
    """
    wordnet_id, _, name = line.partition(" ")
    if not name:
        raise DataError(f"'{file}' has the line '{line}', which isn't a WordNet id and a name, as in 'n01440764 tench'")
    return wordnet_id, name.strip()


def load_clip_names() -> dict[str, str]:
    """Load CLIP's ImageNet class names by WordNet id (Radford et al., ICML 2021); two pairs of names are the same."""
    import yaml

    names: dict[str, str] = yaml.load(SHIPPED.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return names
