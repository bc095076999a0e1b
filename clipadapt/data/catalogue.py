"""What torchvision's image-classification data sets don't say of themselves: words for splits, classes and prompts.

Left out are those whose labels aren't names of things (CLEVRClassification counts; EMNIST has letters of two cases,
which CLIP's tokenizer doesn't tell apart), that have other classes in each split (Omniglot), that were never to be
fetched (ImageNet, FER2013, LFWPeople), and that don't list their labels (PCAM, INaturalist).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipadapt.data.labels import words

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT = "a photo of the digit {}."
PHOTO = "a photo of a {}."


def place(name: str) -> str:
    """A scene as one says it, as in CoOp's datasets/sun397.py: "/f/field/cultivated" is a cultivated field."""
    parts = name.split("/")
    return words(" ".join(reversed(parts[2:] if name.startswith("/") else parts)))


def without_numbers(name: str) -> str:
    """A class of Caltech256: "252.car-side-101" is a car side (those of Caltech101 end so)."""
    return words(name.partition(".")[2].removesuffix("-101").replace("-", " "))


def year_first(name: str) -> str:
    """A car as in CoOp's datasets/stanford_cars.py: "Acura RL Sedan 2012" is a 2012 Acura RL Sedan."""
    model, _, year = name.rpartition(" ")
    return f"{year} {model}"


def first(names: Sequence[str]) -> str:
    """The first of a class's names."""
    return names[0]


@dataclass(frozen=True)
class Known:
    """What is known of a data set.

    Attributes:
        splits: What its class calls train, validation and test split; None where it has no such. Empty where it takes
            no `split`: then `train=True` and `False`, if it takes that, else everything is the pool.
        class_names: In words; empty where the data set has them, None where it has codes or numbers alone.
        template: The prompt.
        say: Makes words of the data set's own names.
        options: Further arguments of its class.
    """

    splits: tuple[str | None, ...] = ()
    class_names: Sequence[str] | None = ()
    template: str = PHOTO
    say: Callable[[Any], str] = words
    options: dict[str, Any] = field(default_factory=dict)


ALL_THREE = ("train", "val", "test")
NO_VALIDATION = ("train", None, "test")

# Templates as in CoOp's configuration (github.com/KaiyangZhou/CoOp, trainers/zsclip.py), where it has the data set, and
# its words for EuroSAT's classes (datasets/eurosat.py).
CATALOGUE = {
    "Caltech101": Known(),
    "Caltech256": Known(say=without_numbers),
    "CIFAR10": Known(),
    "CIFAR100": Known(),
    "Country211": Known(("train", "valid", "test"), None, "a photo i took in {}."),
    "DTD": Known(ALL_THREE, template="{} texture."),
    "EuroSAT": Known(
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
    "FashionMNIST": Known(),
    "FGVCAircraft": Known(ALL_THREE, template="a photo of a {}, a type of aircraft."),
    "Flowers102": Known(ALL_THREE, template="a photo of a {}, a type of flower."),
    "Food101": Known(NO_VALIDATION, template="a photo of {}, a type of food."),
    "GTSRB": Known(NO_VALIDATION, None, "a photo of a {} traffic sign."),
    "Imagenette": Known(("train", None, "val"), say=first),
    "KMNIST": Known(template="a photo of the Japanese character {}."),
    "MNIST": Known(class_names=DIGITS, template=DIGIT),
    "OxfordIIITPet": Known(("trainval", None, "test"), template="a photo of a {}, a type of pet."),
    "Places365": Known(("train-standard", None, "val"), say=place, options={"small": True}),
    "QMNIST": Known(class_names=DIGITS, template=DIGIT),
    "RenderedSST2": Known(ALL_THREE, template="a {} review of a movie."),
    "SEMEION": Known(class_names=DIGITS, template=DIGIT),
    "STL10": Known(NO_VALIDATION),
    "StanfordCars": Known(NO_VALIDATION, say=year_first),
    "SUN397": Known(say=place),
    "SVHN": Known(NO_VALIDATION, DIGITS, "a photo of the number {}."),
    "USPS": Known(class_names=DIGITS, template=DIGIT),
}
