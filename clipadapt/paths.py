"""Which of a source's settings are paths."""

from pathlib import Path
from typing import Annotated, Any, get_args

ANY, FOLDER = "path", "path where there is such a folder"

FilePath = Annotated[str, ANY]
"""A file, a folder, or a pattern of them."""

NameOrFolder = Annotated[str, FOLDER]
"""A folder where there is one of that name, or else the name of something that isn't on this disk."""


def is_path(annotation: Any, text: str) -> bool:
    """Whether a text is a path, where it goes by an annotation."""
    if annotation == NameOrFolder:
        return Path(text).expanduser().is_dir()
    return bool(text) and FilePath in (annotation, *get_args(annotation))
