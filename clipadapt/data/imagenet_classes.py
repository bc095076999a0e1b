"""What ImageNet's classes are called, and which of them a copy of it lacks."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from clipadapt.data.labels import DataWarning
from clipadapt.data.prepared import lines
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, listed

SHIPPED = Path(__file__).with_name("names") / "imagenet.yaml"
SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Incomplete(Source):
    """A data set that lacks classes which are known to belong to it.

    Attributes:
        lacking: By split, which classes have no images there, as "tench (n01440764)".
    """

    lacking: dict[str, list[str]] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """A sentence on each split that lacks classes."""
        return [f"no images in '{split}' of {counted(classes)}" for split, classes in self.lacking.items()]


@dataclass(frozen=True)
class Classes:
    """The classes that there are.

    Attributes:
        names: By WordNet id.
        where: Where that stands, for what is said of it.
    """

    names: Mapping[str, str]
    where: str

    @classmethod
    def of(cls, beside: Path) -> "Classes":
        """Those of the file classnames.txt in a folder, or else ImageNet's, by CLIP's names.

        Raises:
            DataError: For a file that can't be read.
        """
        file = beside / "classnames.txt"
        if file.is_file():
            return cls(dict(id_and_name(line, file) for line in lines(file)), f"the classes in '{file}'")
        return cls(shipped_names(), "ImageNet's 1,000 classes")

    @cached_property
    def ids(self) -> list[str]:
        """The WordNet ids in the order of ImageNet's labels."""
        return sorted(self.names)

    def id_of(self, folder: str) -> str:
        """The WordNet id of a folder, which is called by it or by ImageNet's label."""
        return self.ids[int(folder)] if folder.isdecimal() and int(folder) < len(self.ids) else folder

    def names_of(self, folders: Sequence[str], place: Path) -> list[str]:
        """What people call the classes of folders.

        Args:
            folders: Their names.
            place: Where they are.

        Raises:
            DataError: For folders that aren't classes.
        """
        ids = [self.id_of(folder) for folder in folders]
        strangers = [folder for folder, wordnet_id in zip(folders, ids, strict=True) if wordnet_id not in self.names]
        if strangers:
            found = listed(strangers, SHOWN_CLASSES)
            raise DataError(f"'{place}' has folders that aren't WordNet ids of {self.where}: {found}")
        return [self.names[wordnet_id] for wordnet_id in ids]

    def compared(self, source: Source, folders: Sequence[str], splits: Mapping[str, Split]) -> Source:
        """The source, as an Incomplete one where splits lack some of the classes; of those without a folder it warns.

        A split that lacks some of the source's own classes is told where a task is made of it.

        Args:
            source: A data set that should have all the classes.
            folders: Names of its class folders, in the order of its labels.
            splits: Those that should have them, by name.
        """
        ids = [self.id_of(folder) for folder in folders]
        present = {name: {ids[label] for label in {*split.labels}} for name, split in splits.items()}
        lacking = {name: self.told({*self.ids} - there) for name, there in present.items()}
        if not any(lacking.values()):
            return source
        if unknown := self.told({*self.ids} - {*ids}):
            said = f"{source.name}: of {self.where} only {len(ids):,} are there, and no images of {counted(unknown)}"
            warnings.warn(said, DataWarning, stacklevel=3)
        given = {one.name: getattr(source, one.name) for one in fields(source)}
        return Incomplete(**given, lacking={name: classes for name, classes in lacking.items() if classes})

    def told(self, ids: set[str]) -> list[str]:
        """Classes as a user is told of them, in the order of their labels."""
        return [f"{self.names[wordnet_id]} ({wordnet_id})" for wordnet_id in sorted(ids)]


def counted(classes: Sequence[str]) -> str:
    """A few classes, and where there are more, how many in all."""
    count = f"{len(classes):,} classes: " if len(classes) > SHOWN_CLASSES else ""
    return count + listed(classes, SHOWN_CLASSES)


def id_and_name(line: str, file: Path) -> tuple[str, str]:
    """What a line of classnames.txt says.

    Raises:
        DataError: For a line of one word.
    """
    wordnet_id, _, name = line.partition(" ")
    if not name:
        raise DataError(f"'{file}' has the line '{line}', which isn't a WordNet id and a name, as in 'n01440764 tench'")
    return wordnet_id, name.strip()


def shipped_names() -> dict[str, str]:
    """CLIP's names of ImageNet's classes by WordNet id (Radford et al., ICML 2021); two pairs of them are the same."""
    import yaml

    names: dict[str, str] = yaml.load(SHIPPED.read_text(encoding="utf-8"), yaml.CSafeLoader)
    return names
