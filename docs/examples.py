"""An extension of griffe: examples at the end of a docstring are shown as code."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"\n\n(>>> .*)\Z", re.DOTALL)


class Examples(griffe.Extension):
    """Gives the examples at the end of a docstring the heading that griffe looks for."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Indent the examples of an object's docstring below a heading."""
        if obj.docstring and (found := EXAMPLE.search(obj.docstring.value)):
            lines = "\n".join(f"    {line}" for line in found[1].splitlines())
            obj.docstring.value = f"{obj.docstring.value[: found.start()]}\n\nExamples:\n{lines}\n"
