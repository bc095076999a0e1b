"""Sources of images: real handwritten digits, drawings, folders of image files.

Each function returns a Source; conf/data names one of them, with its arguments. `templates` are sentences with {} for
the class name; None takes the source's own.
"""

import ast
import hashlib
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from clipadapt.data.class_words import ClassWords, check_known, read_words, split_class_names
from clipadapt.data.folders import Layout, read_folder
from clipadapt.data.images import LazyImages
from clipadapt.data.labels import to_source
from clipadapt.data.tasks import Source, Split
from clipadapt.errors import DataError, nearest
from clipadapt.files import FilePath

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS_IN_POOL = 1000
DIGIT_WHITE = 16
MAIN_STYLE = "flat"
SMALLEST_DRAWING, LARGEST_DRAWING = 8, 4096
MOST_DRAWINGS = 100_000


def digits(templates: list[str] | None = None) -> Source:
    """Load scikit-learn's 1797 real handwritten digits, 8 x 8 pixels (Alpaydin & Kaynak 1998).

    In file order, the first 1000 are the pool and the last 797 the test set.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this source needs it

    data = load_digits()
    grey = np.rint(data.images * (255 / DIGIT_WHITE)).astype(np.uint8)
    images = [Image.fromarray(values).convert("RGB") for values in grey]
    labels = [int(label) for label in data.target]
    return Source(
        name="digits",
        class_names=list(DIGIT_NAMES),
        templates=["a photo of the digit {}."] if templates is None else templates,
        train=Split(images[:DIGITS_IN_POOL], labels[:DIGITS_IN_POOL]),
        validation=None,
        tests={"test": Split(images[DIGITS_IN_POOL:], labels[DIGITS_IN_POOL:])},
    )


def draw_image(task: str, split: str, style: str, size: int, index: int) -> Image.Image:
    """Draw one image of a drawn task (see clipadapt.data.drawn.draw_labelled)."""
    from clipadapt.data.drawn import draw_labelled

    return Image.fromarray(draw_labelled(task, split, index, style=style, size=size)[0])


def content_key(code: str, task: str, split: str, style: str, size: int, index: int) -> bytes:
    """Return bytes that identify a drawing: the hash of the code that draws it, and its arguments."""
    return repr((code, task, split, style, size, index)).encode()


def statements(module: Path) -> bytes:
    """Return the code of a Python file without its comments, docstrings and line breaks."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.unparse(tree).encode()


@cache
def drawing_code_hash() -> str:
    """Return a hash of the code that draws, and of the versions of the libraries it calls."""
    libraries = [version(name) for name in ("matplotlib", "numpy", "pillow", "scipy")]
    code = [statements(path) for path in sorted(Path(__file__).with_name("drawn").glob("*.py"))]
    return hashlib.sha256(b"".join([repr(libraries).encode(), *code])).hexdigest()


def drawings(task: str, split: str, style: str, size: int, count: int, classes: int) -> Split:
    """Return the first `count` images of a drawn task's split; labels cycle through the classes."""
    images = LazyImages(
        range(count),
        partial(draw_image, task, split, style, size),
        content=partial(content_key, drawing_code_hash(), task, split, style, size),  # not in threads: ast isn't safe
    )
    return Split(images, [index % classes for index in range(count)])


def drawn(
    name: str = "shapes",
    size: int = 32,
    train_per_class: int = 40,
    validation_per_class: int = 8,
    test_images: int = 600,
    templates: list[str] | None = None,
) -> Source:
    """Return a task of the drawn world, tested in its main style ("test") and in every other style (by its name).

    Images are drawn on access; the same arguments give the same images.

    Args:
        name: "shapes", "pairs" (shape and colour) or "glyphs" (digits and letters).
        size: Side of the images in pixels, at least 8.
        train_per_class: Images of each class in the pool.
        validation_per_class: Images of each class in the validation list.
        test_images: Images in each test set, at least one for each class.
        templates: Sentences with {} for the class name; None for the task's own.

    Raises:
        DataError: The name is unknown, or a number is too small.
    """
    from clipadapt.data.drawn import STYLES, TASKS  # takes half a second, and only this source needs it

    if name not in TASKS:
        raise DataError(f"there is no drawn task '{name}': {nearest(name, TASKS)}")
    class_names = list(TASKS[name].class_names)
    least = {"size": SMALLEST_DRAWING, "train_per_class": 1, "validation_per_class": 1, "test_images": len(class_names)}
    given = {
        "size": size,
        "train_per_class": train_per_class,
        "validation_per_class": validation_per_class,
        "test_images": test_images,
    }
    for key, value in given.items():
        if value < least[key]:
            raise DataError(f"{key} of the drawn task '{name}' must be at least {least[key]}, and {value} is not")
        if value > (largest := LARGEST_DRAWING if key == "size" else MOST_DRAWINGS):
            raise DataError(f"{key} of the drawn task '{name}' must be at most {largest:,}, and {value:,} is not")

    classes = len(class_names)
    shifted = [style for style in STYLES if style != MAIN_STYLE]
    return Source(
        name=f"drawn-{name}",
        class_names=class_names,
        templates=list(TASKS[name].templates) if templates is None else templates,
        train=drawings(name, "train", MAIN_STYLE, size, train_per_class * classes, classes),
        validation=drawings(name, "val", MAIN_STYLE, size, validation_per_class * classes, classes),
        tests={"test": drawings(name, "test", MAIN_STYLE, size, test_images, classes)}
        | {style: drawings(name, "test", style, size, test_images, classes) for style in shifted},
    )


def folder(
    root: FilePath,
    templates: list[str] | None = None,
    class_names: FilePath | ClassWords | None = None,
    splits: bool | None = None,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
) -> Source:
    """Read a folder of image files with one folder per class, or train, val and test folders of such folders.

    Class names are the folders' names. Where these aren't what CLIP should read, `class_names` has one name or several
    for CLIP; answers still have the folders' names. Without a val folder, validation
    images are drawn from the training images; without a test folder, the images outside the support and validation
    sets are the test set. Splits have usual names (train, training, val, valid, dev, test, eval, holdout …, in any
    case), or all hold folders of the same names.

    Args:
        root: The folder.
        templates: Sentences with {} for the class name; None for "a photo of a {}."
        class_names: The names for CLIP by folders' names, for those that need others: SKU-4711 to "cordless drill", or
            to a list of names; or a file of them (see `read_words`).
        splits: False if all folders in it are classes, whatever their names.
        train: The name of the folder to learn from; None for a usual name.
        validation: The name of the folder to validate on.
        test: The name of the folder to test on.

    Raises:
        DataError: There are no images, classes or splits as described.
    """
    layout = Layout(splits is not False, {"train": train, "val": validation, "test": test})
    place = Path(root).expanduser()
    found = read_folder(place, None, layout)
    words = read_words(class_names or {})
    check_known(words, found.class_names, root, "class folder")
    return to_source(place.resolve().name, found.class_names, templates, found.splits, words=words)


def unlabelled(
    root: FilePath, class_names: FilePath | list[str | list[str]] | ClassWords, templates: list[str] | None = None
) -> Source:
    """Read a folder of image files without labels, flat or with subfolders, whose possible classes are known.

    A subfolder named test is the test set, with one folder per class; without it there is no test set.

    Args:
        root: The folder.
        class_names: Names of the classes; of a list of names for one class, the first is what it is called; or the
            names for CLIP by class, or a file of them (see `read_words`).
        templates: Sentences with {} for the class name; None for "a photo of a {}."

    Raises:
        DataError: There are no images, fewer than two classes, or other classes in the test folder.
    """
    place = Path(root).expanduser()
    names, words = split_class_names(class_names)
    found = read_folder(place, names or [*words])
    return to_source(place.resolve().name, found.class_names, templates, found.splits, words=words)
