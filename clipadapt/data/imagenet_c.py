"""The published ImageNet-C: ImageNet's validation images, corrupted, cropped to 224 pixels and saved as JPEG files.

clipadapt.data.corruptions applies the same corruptions to images of other data sets.
"""

from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Interval

from clipadapt.data.imagenet import evaluation_only_source
from clipadapt.data.imagenet_classes import ImageNetClasses
from clipadapt.data.prepared import home_folder
from clipadapt.data.tasks import Source
from clipadapt.errors import DataError
from clipadapt.files import FilePath
from clipadapt.paths import LocalPath

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
    images: LocalPath,
    corruption: Literal[Noise, Blur, Weather, Digital, Extra],
    severity: Annotated[int, Interval(ge=1, le=5)],
    class_names: list[str] | None,
    templates: list[str],
) -> Source:
    """Read one corruption of ImageNet-C (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261) as a test set.

    Its five archives (https://zenodo.org/records/2235448) hold `<corruption>/<severity>/<WordNet id>/*.JPEG`, 50,000
    images per corruption and severity. They may be unpacked into one folder, or each into its own: noise, blur,
    weather, digital, extra.

    Args:
        name: The data set's name.
        home: The folder that holds all data sets.
        images: The folder that the archives were unpacked into, relative to `home`; it may hold classnames.txt.
        corruption: One of the 15, or of the 4 extra ones.
        severity: From 1 to 5.
        class_names: Class names in the order of the folders; None for those of classnames.txt, or else CLIP's.
        templates: Sentences with {} for the class name.

    Raises:
        DataError: A folder is missing or has no images, some folders are not classes of ImageNet, or the number of
            class names differs from the number of classes.
    """
    folder = home_folder(home) / images
    archive = next(archive for archive, kinds in ARCHIVES.items() if corruption in get_args(kinds))
    part = Path(corruption, str(severity))
    places = [place for place in (folder / part, folder / archive / part) if place.is_dir()]
    if not places:
        raise DataError(f"'{folder}' has no {part.as_posix()}: unpack {archive}.tar of {URL} into it")
    return evaluation_only_source(name, places[0], ImageNetClasses.read(folder), class_names, templates)
