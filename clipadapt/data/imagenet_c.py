"""The published ImageNet-C: ImageNet's validation images, corrupted, cropped to 224 pixels and saved as JPEG files.

What corrupts the images of other data sets is in clipadapt.data.corruptions.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from clipadapt.data.imagenet import to_test_on
from clipadapt.data.imagenet_classes import Classes
from clipadapt.data.prepared import home_folder
from clipadapt.data.tasks import Source
from clipadapt.errors import DataError
from clipadapt.files import FilePath

URL = "https://zenodo.org/records/2235448"

Noise = Literal["gaussian_noise", "shot_noise", "impulse_noise"]
Blur = Literal["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]
Weather = Literal["snow", "frost", "fog", "brightness"]
Digital = Literal["contrast", "elastic_transform", "pixelate", "jpeg_compression"]
Extra = Literal["speckle_noise", "gaussian_blur", "spatter", "saturate"]
ARCHIVES = {"noise": Noise, "blur": Blur, "weather": Weather, "digital": Digital, "extra": Extra}


def imagenet_c(
    name: str,
    home: FilePath,
    images: str,
    corruption: Literal[Noise, Blur, Weather, Digital, Extra],
    severity: Annotated[int, Interval(ge=1, le=5)],
    class_names: list[str] | None,
    templates: list[str],
) -> Source:
    """One corruption of ImageNet-C (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261) at one severity, to test on.

    Its five archives (https://zenodo.org/records/2235448) hold `<corruption>/<severity>/<WordNet id>/*.JPEG`, 50,000
    images each time. They may be unpacked into one folder, or each into one of its own: noise, blur, weather, digital,
    extra.

    Args:
        name: What it is called.
        home: The folder that holds all data sets.
        images: The folder that the archives were unpacked into, from there; classnames.txt may be in it.
        corruption: One of the 15, or of the 4 extra ones.
        severity: From 1 to 5.
        class_names: In the order of the folders; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: For a folder that is missing or has no images, folders that are no classes of ImageNet, or class
            names of another number.
    """
    folder = home_folder(home) / images
    archive = next(archive for archive, kinds in ARCHIVES.items() if corruption in get_args(kinds))
    part = Path(corruption, str(severity))
    places = [place for place in (folder / part, folder / archive / part) if place.is_dir()]
    if not places:
        raise DataError(f"'{folder}' has no {part.as_posix()}: unpack {archive}.tar of {URL} into it")
    return to_test_on(name, places[0], Classes.of(folder), class_names, templates)
