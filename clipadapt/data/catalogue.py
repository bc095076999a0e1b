"""Names of splits and classes, and prompts, for torchvision's image-classification data sets, which lack them.

Left out are data sets whose labels don't name objects (CLEVRClassification counts; EMNIST has letters in two cases,
which CLIP's tokenizer maps to the same tokens), whose splits have different classes (Omniglot), that torchvision can't
download (ImageNet, FER2013, LFWPeople), and that don't list their labels (PCAM, INaturalist).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipadapt.data.labels import to_words

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT = "a photo of the digit {}."
PHOTO = "a photo of a {}."


def scene_name(name: str) -> str:
    """Return a scene's name as in CoOp's datasets/sun397.py: "/f/field/cultivated" becomes "cultivated field"."""
    parts = name.split("/")
    return to_words(" ".join(reversed(parts[2:] if name.startswith("/") else parts)))


def caltech_name(name: str) -> str:
    """Return a class name of Caltech256: "252.car-side-101" becomes "car side" (classes of Caltech101 end in -101)."""
    return to_words(name.partition(".")[2].removesuffix("-101").replace("-", " "))


def car_name(name: str) -> str:
    """Move the year to the front as CoOp's datasets/stanford_cars.py does: "BMW X3 SUV 2012" -> "2012 BMW X3 SUV"."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"


def first_name(names: Sequence[str]) -> str:
    """Return the first of a class's names."""
    return names[0]


@dataclass(frozen=True)
class CatalogueEntry:
    """A data set of torchvision's: how it is read, its classes and its prompt.

    Attributes:
        splits: The `split` arguments of the train, validation and test split; None for a split it lacks. Empty for a
            data set without that argument: its splits are `train=True` and `train=False`, or else all images are the
            pool.
        class_names: The class names; empty to take the data set's own, None if it has only codes or numbers.
        template: The prompt.
        to_name: Converts one of the data set's own names to a class name.
        options: Other arguments of its class.
    """

    splits: tuple[str | None, ...] = ()
    class_names: Sequence[str] | None = ()
    template: str = PHOTO
    to_name: Callable[[Any], str] = to_words
    options: dict[str, Any] = field(default_factory=dict)


ALL_THREE = ("train", "val", "test")
NO_VALIDATION = ("train", None, "test")

# Templates as in CoOp's configuration (github.com/KaiyangZhou/CoOp, trainers/zsclip.py), where it has the data set, and
# its words for EuroSAT's classes (datasets/eurosat.py).
CATALOGUE = {
    "Caltech101": CatalogueEntry(),
    "Caltech256": CatalogueEntry(to_name=caltech_name),
    "CIFAR10": CatalogueEntry(),
    "CIFAR100": CatalogueEntry(),
    "Country211": CatalogueEntry(("train", "valid", "test"), None, "a photo i took in {}."),
    "DTD": CatalogueEntry(ALL_THREE, template="{} texture."),
    "EuroSAT": CatalogueEntry(
        class_names=(
            "Annual Crop Land",
            "Forest",
            "Herbaceous Vegetation Land",
            "Highway or Road",
            "Industrial Buildings",
            "Pasture Land",
            "Permanent Crop Land",
            "Residential Buildings",
            "River",
            "Sea or Lake",
        ),
        template="a centered satellite photo of {}.",
    ),
    "FashionMNIST": CatalogueEntry(),
    "FGVCAircraft": CatalogueEntry(ALL_THREE, template="a photo of a {}, a type of aircraft."),
    "Flowers102": CatalogueEntry(ALL_THREE, template="a photo of a {}, a type of flower."),
    "Food101": CatalogueEntry(NO_VALIDATION, template="a photo of {}, a type of food."),
    "GTSRB": CatalogueEntry(NO_VALIDATION, None, "a photo of a {} traffic sign."),
    "Imagenette": CatalogueEntry(("train", None, "val"), to_name=first_name),
    "KMNIST": CatalogueEntry(template="a photo of the Japanese character {}."),
    "MNIST": CatalogueEntry(class_names=DIGITS, template=DIGIT),
    "OxfordIIITPet": CatalogueEntry(("trainval", None, "test"), template="a photo of a {}, a type of pet."),
    "Places365": CatalogueEntry(("train-standard", None, "val"), to_name=scene_name, options={"small": True}),
    "QMNIST": CatalogueEntry(class_names=DIGITS, template=DIGIT),
    "RenderedSST2": CatalogueEntry(ALL_THREE, template="a {} review of a movie."),
    "SEMEION": CatalogueEntry(class_names=DIGITS, template=DIGIT),
    "STL10": CatalogueEntry(NO_VALIDATION),
    "StanfordCars": CatalogueEntry(NO_VALIDATION, to_name=car_name),
    "SUN397": CatalogueEntry(to_name=scene_name),
    "SVHN": CatalogueEntry(NO_VALIDATION, DIGITS, "a photo of the number {}."),
    "USPS": CatalogueEntry(class_names=DIGITS, template=DIGIT),
}
