"""Data sets in miniature, laid out as CoOp's DATASETS.md says: images of a few pixels below a home folder."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

PETS = ["abyssinian", "american_bulldog", "beagle", "birman"]
VARIANTS = ["707-320", "A340-200", "Boeing 717", "Spitfire"]
WORDNET = {"n01440764": "tench", "n01443537": "goldfish", "n03773504": "missile", "n04008634": "missile"}
"""WordNet ids of four classes of ImageNet, and CLIP's names."""


def picture(path: Path) -> str:
    """Save an image of a few pixels, whose file is like no other; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name), 60, 120)).save(path, "JPEG" if path.suffix.lower() != ".png" else "PNG")
    path.write_bytes(path.read_bytes() + str(path).encode())  # after its end, so that no two files are equal
    return str(path)


def entries(names: Sequence[str], part: str, count: int, extension: str = "jpg") -> list[tuple[str, int, str]]:
    """`count` images of each class for a split file, the classes by turns, the last one first."""
    pairs = [(number, label) for number in range(count) for label in reversed(range(len(names)))]
    return [(f"{names[label]}/{part}_{number}.{extension}", label, names[label]) for number, label in pairs]


def split_file(home: Path, images: str, split: str, names: Sequence[str] = PETS) -> dict[str, list]:
    """A data set with a split file: 5, 3 and 2 images of each class; what the file says."""
    lists = {part: entries(names, part, count) for part, count in (("train", 5), ("val", 3), ("test", 2))}
    for path, _, _ in (entry for some in lists.values() for entry in some):
        picture(home / images / path)
    (home / split).write_text(json.dumps(lists))
    return lists


def aircraft(home: Path) -> dict[str, list[str]]:
    """FGVC Aircraft with four variants, one of two words; the lines of its lists."""
    folder, number = home / "fgvc_aircraft", 0
    lists: dict[str, list[str]] = {}
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        for variant in VARIANTS[::-1] * count:
            number += 1
            picture(folder / "images" / f"{number:07d}.jpg")
            lists.setdefault(part, []).append(f"{number:07d} {variant}")
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lists[part]) + "\n")
    (folder / "variants.txt").write_text("\n".join(VARIANTS) + "\n")
    return lists


def imagenet(home: Path, classnames: bool = True) -> None:
    """ImageNet with four classes, nine images of each to learn from and two to test on."""
    for wordnet_id in WORDNET:
        for number in range(9):
            picture(home / "imagenet" / "images" / "train" / wordnet_id / f"{wordnet_id}_{number}.JPEG")
        for number in range(2):
            picture(home / "imagenet" / "images" / "val" / wordnet_id / f"ILSVRC2012_val_{number:08d}.JPEG")
    if classnames:
        write_classnames(home / "imagenet")


def variant(home: Path, images: str, folders: Iterable[str]) -> None:
    """A variant of ImageNet, two images in each of its folders, with a README.txt beside them."""
    for folder in folders:
        for number in range(2):
            picture(home / images / folder / f"{number}.jpg")
    (home / images / "README.txt").write_text("what this is")


def imagenet_c(home: Path, unpacked: str, corruption: str, severity: int) -> None:
    """One corruption of ImageNet-C at one severity: two images of each of four classes."""
    for wordnet_id in WORDNET:
        for number in range(2):
            place = home / unpacked / corruption / str(severity) / wordnet_id
            picture(place / f"ILSVRC2012_val_{number:08d}.JPEG")


def write_classnames(folder: Path, names: dict[str, str] = WORDNET) -> None:
    """A classnames.txt."""
    (folder / "classnames.txt").write_text("".join(f"{wordnet_id} {name}\n" for wordnet_id, name in names.items()))
