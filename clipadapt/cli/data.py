"""`clipadapt data`: what data there are, how to get them, and whether every image of them can be read."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipadapt import config
from clipadapt.config.overrides import Words
from clipadapt.config.values import MISSING
from clipadapt.console import make_console, print_out
from clipadapt.errors import UserError, nearest

if TYPE_CHECKING:
    from clipadapt.data import Source

CONFIG_DIR = "--config-dir"


def run(words: Words) -> None:
    """Do what the first word says with the others.

    Raises:
        UserError: no such command, or what the command itself says.
    """
    commands: dict[str, Callable[[list[str], str | None], None]] = {
        "list": show,
        "prepare": prepare,
        "verify": verify,
    }
    config.raise_all(f"{option} has no meaning here" for option in words.options if option != CONFIG_DIR)
    folder, (verb, *settings) = words.options.get(CONFIG_DIR), words.settings or [""]
    if not verb:
        raise UserError(
            "say what to do: clipadapt data list, clipadapt data prepare NAME or clipadapt data verify NAME"
        )
    if verb not in commands:
        advice = f"to run on these data write data={verb}" if verb in config.options("data", folder) else ""
        raise UserError(f"there is no command 'data {verb}': {advice or nearest(verb, commands)}")
    commands[verb](settings, folder)


def show(settings: Sequence[str], folder: str | None) -> None:
    """`clipadapt data list`: every source of images, one line each, with whether it is there and what it is."""
    config.raise_all(f"'{word}' has no meaning here: clipadapt data list shows all there are" for word in settings)
    found = config.sources(folder)
    states = [state(source["data"]) for source in found]
    width, wide = max(len(source["name"]) for source in found), max(map(len, states))
    for source, where in zip(found, states, strict=True):
        print_out(f"{source['name']:{width}}  {where:{wide}}  {source['about']}".rstrip())


def state(data: Mapping[str, Any]) -> str:
    """Whether the images of a source with these settings are there, in a few words."""
    needed = [f"data.{key}=…" for key, value in data.items() if value == MISSING]
    if needed:
        return f"needs {', '.join(needed)}"
    if "home" in data:
        place = Path(data["home"], data["images"]).expanduser()
        return f"found in {place}" if place.is_dir() else f"missing: there is no folder {place}"
    if isinstance(data.get("root"), str):
        place = Path(data["root"]).expanduser()
        missing = absent(place)
        return f"missing: there is no {missing}" if missing else f"found in {place}"
    return "fetched on first use" if data.get("download") else "needs nothing"


def absent(place: Path) -> str | None:
    """The first of what isn't there of a folder, a file or the shards that a pattern stands for; None if all is."""
    from clipadapt.data.shards import expand_braces  # knows how images are read, which data without a pattern need not

    if place.exists():
        return None
    return next((pattern for pattern in expand_braces(str(place)) if not glob(pattern)), None)


def prepare(settings: Sequence[str], folder: str | None) -> None:
    """`clipadapt data prepare NAME [data.key=value …]`: fetch data that can be fetched, and say where they are.

    Raises:
        UserError: something is wrong with the settings, or the data can't be fetched.
    """
    found = composed(settings, folder, "prepare")
    data = found["data"]
    if "home" in data:
        from clipadapt.data.mirror import fetch

        place = fetch([data[key] for key in ("images", "split") if key in data], Path(data["home"]).expanduser())
        print_out(f"Unpacked in {place}. To look at every image: clipadapt data verify {data['name']}")
    elif "cache_dir" in data:
        source = config.build_source(found)
        tests = "".join(f", {name}: {len(split):,}" for name, split in source.tests.items())
        print_out(f"{source.name} is there: {len(source.class_names):,} classes, train: {len(source.train):,}{tests}")
    else:
        own = f"are your own, {state(data)}" if "root" in data else "come with the package"
        raise UserError(f"there is nothing to fetch: these images {own}")


def verify(settings: Sequence[str], folder: str | None) -> None:
    """`clipadapt data verify NAME [data.key=value …]`: decode every image of every split, and tell all faults.

    Faults are images that can't be read, classes that are missing, and class names that CLIP doesn't tell apart.

    Raises:
        UserError: something is wrong with the settings, the source or any image.
    """
    from clipadapt.data.broken import find_broken  # knows how images are read, which a list need not wait for
    from clipadapt.data.imagenet_classes import IncompleteSource
    from clipadapt.data.labels import DataWarning, ambiguous_names
    from clipadapt.report import data as tables
    from clipadapt.report import progress as bars

    with warnings.catch_warnings(action="ignore", category=DataWarning):  # told below, as faults
        source: Source = config.build_source(composed(settings, folder, "verify"))
    splits = {"train": source.train, "validation": source.validation, **source.tests}
    there = {name: split for name, split in splits.items() if split is not None}
    console, total = make_console(), sum(map(len, there.values()))
    with bars.images(console, total, "checked", transient=True) as update:
        bad = {name: find_broken(split.images, True, update) for name, split in there.items()}
    console.print(tables.splits_table(source, there, {name: len(found) for name, found in bad.items()}))
    problems = [
        *dict.fromkeys(text for found in bad.values() for text in found.values()),
        *ambiguous_names(source.class_names),
    ]
    problems += source.describe_missing() if isinstance(source, IncompleteSource) else []
    for text in problems:
        print_out(text)
    if problems:
        found = "one problem is" if len(problems) == 1 else f"{len(problems):,} problems are"
        raise UserError(f"'{source.name}' has to be mended: {found} listed above")
    print_out(f"All {total:,} images can be read.")


def composed(settings: Sequence[str], folder: str | None, verb: str) -> dict[str, Any]:
    """The settings of a run on the data that `NAME data.key=value …` names, or `data=NAME data.key=value …`."""
    name, *rest = settings or [""]
    words = [f"data={name}", *rest] if name and "=" not in name and not name.startswith("-") else [*settings]
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    if "data" not in keys:
        raise UserError(f"say which data: clipadapt data {verb} folder data.root=my_images")
    config.raise_all(
        f"{word} has no meaning here: settings of data are written data.key=value"
        for word, key in zip(words, keys, strict=True)
        if "=" in word and key != "data" and not key.startswith("data.")
    )
    return config.compose(words, folder)
