"""The formats that a predictor can be exported to, with the options of each; imports no PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from clipadapt.errors import SettingsError, UserError, nearest
from clipadapt.paths import shorten

DEFAULTS: dict[str, Any] = {"images": 256, "opset": 18, "preprocess": False, "quantize": "none", "compile": False}
"""Options of the formats, by key, with their defaults."""

CHOICES = {"quantize": ("none", "dynamic")}
LONGEST_NUMBER = 9
"""Digits of a number."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        title: what it is, in a few words.
        module: the module of `clipadapt.exports` that writes it; its function `write` does.
        options: keys of its options.
        packages: packages that it needs beside those of every installation.
        extra: the extra of clipadapt that installs them.
        at_test_time: whether a method that adapts to each test image can be exported.
    """

    title: str
    module: str
    options: tuple[str, ...] = ("images",)
    packages: tuple[str, ...] = ()
    extra: str = ""
    at_test_time: bool = False


FORMATS = {
    "onnx": Format(
        "a graph for onnxruntime and others",
        "onnx_graph",
        ("images", "opset", "preprocess", "quantize"),
        ("onnx", "onnxruntime", "onnxscript"),
        "export",
    ),
    "torch": Format("a program of torch.export", "torch_program", ("images", "compile")),
    "open_clip": Format("an open_clip checkpoint", "open_clip_checkpoint"),
    "classifier": Format("class weights, for who has features already", "class_weights"),
    "peft": Format("peft's adapter files", "peft_adapter", at_test_time=True),
    "transformers": Format(
        "a CLIPModel of transformers", "transformers_model", packages=("transformers",), extra="transformers"
    ),
}


def find_format(name: Any) -> Format:
    """Return a format by its name.

    Raises:
        SettingsError: there is none of this name.
    """
    if not isinstance(name, str) or name not in FORMATS:
        raise SettingsError(f"there is no format {shorten(repr(name))}: {nearest(str(name), FORMATS)}")
    return FORMATS[name]


def check_packages(name: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        UserError: one isn't.
    """
    form = FORMATS[name]
    missing = [package for package in form.packages if find_spec(package) is None]
    if missing:
        raise UserError(f'format={name} needs {" and ".join(missing)}: pip install "clipadapt[{form.extra}]"')


def read_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a format by key, those that aren't given with their defaults.

    Args:
        name: of the format.
        given: values as they are, or as the command line has them.

    Raises:
        SettingsError: the format has no such option, or a value doesn't fit.
    """
    own = FORMATS[name].options
    for key in given:
        if key not in own:
            raise SettingsError(f"format={name} has no option {shorten(key)}: {nearest(key, own)}")
    return {key: read_option(key, given[key]) if key in given else DEFAULTS[key] for key in own}


def read_option(key: str, value: Any) -> Any:
    """Return the value of an option; raises SettingsError if it doesn't fit."""
    text = str(value)
    found: Any
    if key in CHOICES:
        found = text if text in CHOICES[key] else None
        wanted = " or ".join(CHOICES[key])
    elif isinstance(DEFAULTS[key], bool):
        found, wanted = {"true": True, "false": False}.get(text.lower()), "true or false"
    else:
        whole = text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER and int(text) > 0
        found, wanted = int(text) if whole else None, "a whole number (at least 1)"
    if found is None:
        raise SettingsError(f"{key}={shorten(text)} does not fit: it must be {wanted}")
    return found
