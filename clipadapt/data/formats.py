"""Formats of image files: every one that Pillow can open as a still image, by the ends of files' names."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from PIL import Image, features

NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
"""Formats that Pillow knows, but opens with other programs, on some systems, or not as an image."""

CODECS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Format to the codec that Pillow may have been built without."""

PLUGINS = {".avif": "pillow-avif-plugin", ".heic": "pillow-heif", ".heif": "pillow-heif"}
"""End of a file's name to the package that reads such files, where Pillow alone doesn't."""

VIA_JPEG = ("MPO",)
"""Formats that Pillow opens as JPEG first: several pictures in one file, such as those of stereo cameras."""

COMMON = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "webp")

if find_spec("pillow_heif") is not None:
    import_module("pillow_heif").register_heif_opener()


@cache
def image_suffixes() -> frozenset[str]:
    """Return the ends of the names of image files that can be read, in lower case, with their dots."""
    known = Image.registered_extensions()
    lacking = {name for name, codec in CODECS.items() if not features.check(codec)}
    read = {*Image.OPEN, *VIA_JPEG} - NOT_READ - lacking
    return frozenset(end for end, name in known.items() if name in read)


def describe_suffixes() -> str:
    """Return the commonest ends of names that are read, without dots, and how many more there are."""
    return f"{', '.join(COMMON)} and {len(image_suffixes()) - len(COMMON)} more"
