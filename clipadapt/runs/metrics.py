"""The metrics of a run."""

from typing import Any

from clipadapt.errors import MissingFigure, nearest


class Metrics(dict[str, Any]):
    """Metrics by name; asked for one that isn't there, they say why."""

    def __missing__(self, name: object) -> Any:
        """Raise MissingFigure."""
        if self.get("tests"):
            raise MissingFigure(f"there is no figure {name!r}: {nearest(str(name), self)}")
        raise MissingFigure(
            f"there is no {name!r}: the run had no test images to measure on (a folder test with one folder for each "
            "class gives it some, as do more images or fewer shots)"
        )
