"""`clipadapt data`: list the data sources, fetch one, verify that its images can be read, or audit its labels."""

import os
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
DUPLICATES, USUAL_COSINE = "duplicates=", 0.985
BANDS = ("task.bands", "task.value_range")


def run(words: Words) -> None:
    """Run the subcommand that the first word names with the other words.

    Raises:
        UserError: there is no such subcommand, or the subcommand fails.
    """
    commands: dict[str, Callable[[list[str], str | None], None]] = {
        "list": show,
        "prepare": prepare,
        "verify": verify,
        "audit": audit,
    }
    config.raise_all(f"{option} has no meaning here" for option in words.options if option != CONFIG_DIR)
    folder, (verb, *settings) = words.options.get(CONFIG_DIR), words.settings or [""]
    if not verb:
        raise UserError(
            "say what to do: clipadapt data list, clipadapt data prepare NAME, clipadapt data verify NAME or clipadapt "
            "data audit NAME"
        )
    if verb not in commands:
        advice = f"to run on these data write data={verb}" if verb in config.options("data", folder) else ""
        raise UserError(f"there is no command 'data {verb}': {advice or nearest(verb, commands)}")
    commands[verb](settings, folder)


def show(settings: Sequence[str], folder: str | None) -> None:
    """Run `clipadapt data list`: list all sources of images, one line each, with their state and description."""
    config.raise_all(f"'{word}' has no meaning here: clipadapt data list shows all there are" for word in settings)
    found = config.sources(folder)
    states = [state(source["data"]) for source in found]
    width, wide = max(len(source["name"]) for source in found), max(map(len, states))
    for source, where in zip(found, states, strict=True):
        print_out(f"{source['name']:{width}}  {where:{wide}}  {source['about']}".rstrip())


def state(data: Mapping[str, Any]) -> str:
    """Describe in a few words whether the images of a source with these settings are present."""
    needed = [f"data.{key}=…" for key, value in data.items() if value == MISSING]
    if needed:
        return f"needs {', '.join(needed)}"
    if "home" in data:
        place = Path(data["home"], data["images"]).expanduser()
        return f"found in {place}" if os.path.isdir(place) else f"missing: there is no folder {place}"
    if isinstance(data.get("root"), str):
        place = Path(data["root"]).expanduser()
        missing = absent(place)
        return f"missing: there is no {missing}" if missing else f"found in {place}"
    return "fetched on first use" if data.get("download") else "needs nothing"


def absent(place: Path) -> str | None:
    """Return the first missing path of a folder, a file or a pattern of shards; None if nothing is missing."""
    from clipadapt.data.shards import expand_braces  # imports image readers, which are only needed for patterns

    if os.path.exists(place):
        return None
    return next((pattern for pattern in expand_braces(str(place)) if not glob(pattern)), None)


def prepare(settings: Sequence[str], folder: str | None) -> None:
    """Run `clipadapt data prepare NAME [data.key=value …]`: download a source's images, and print their folder.

    Raises:
        UserError: the settings are wrong, or the data can't be downloaded.
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
    """Run `clipadapt data verify NAME [data.key=value …]`: decode all images of all splits, and list all problems.

    Problems are images that can't be read, equal ones in several splits or under several labels, missing classes, and
    class names that are the same to CLIP. Images with nothing to see are listed, too. `duplicates=true`, or a cosine,
    lists nearly equal images by the features of `backbone=`.

    Raises:
        UserError: the settings or the source are wrong, or there is any problem.
    """
    from clipadapt.data.broken import describe_doubts, inspect  # imports image readers, which `list` doesn't need
    from clipadapt.data.duplicates import find_equal
    from clipadapt.data.imagenet_classes import IncompleteSource
    from clipadapt.data.labels import DataWarning, ambiguous_names
    from clipadapt.report import data as tables
    from clipadapt.report import progress as bars

    with warnings.catch_warnings(action="ignore", category=DataWarning):  # listed below as problems
        settings, cosine = take_duplicates(settings)
        composition = composed(settings, folder, "verify", [*BANDS, *["backbone"] * bool(cosine)])
        source = build_or_look_below(composition)
    splits = {"train": source.train, "validation": source.validation, **source.tests}
    present = {name: split for name, split in splits.items() if split is not None}
    if any(composition["task"][key.removeprefix("task.")] is not None for key in BANDS):
        from clipadapt.runs.tasks import framing  # imports PyTorch

        present = {name: framing(composition).split(split) for name, split in present.items()}
    console, total = make_console(), sum(map(len, present.values()))
    with bars.images(console, total, "checked", transient=True) as update:
        found = {name: inspect(split.images, True, update) for name, split in present.items()}
    console.print(tables.splits_table(source, present, {name: len(each.broken) for name, each in found.items()}))
    problems = [
        *dict.fromkeys(text for each in found.values() for text in each.broken.values()),
        *find_equal(present, source.class_names),
        *ambiguous_names(source.names_for_clip),
    ]
    if cosine:
        from clipadapt.runs.near_duplicates import find_near_duplicates

        with bars.images(console, total, "compared", transient=True) as update:
            problems += find_near_duplicates(composition, present, source.class_names, cosine, update)
    problems += source.describe_missing() if isinstance(source, IncompleteSource) else []
    doubts = (text for name, split in present.items() for text in describe_doubts(split.images, found[name].doubtful))
    for text in [*dict.fromkeys(doubts), *problems]:
        print_out(text)
    if problems:
        listed = "one problem is" if len(problems) == 1 else f"{len(problems):,} problems are"
        raise UserError(f"'{source.name}' has to be mended: {listed} listed above")
    print_out(f"All {total:,} images can be read.")


def audit(settings: Sequence[str], folder: str | None) -> None:
    """Run `clipadapt data audit NAME [data.key=value …]`: find labels that are probably wrong.

    Raises:
        UserError: the settings or the source are wrong, or cleanlab isn't installed.
    """
    composition = composed(settings, folder, "audit", (*BANDS, "task.resize", "task.pad_colour", "backbone", "output"))
    from clipadapt.runs.audit import audit_labels  # imports PyTorch

    audit_labels(composition, make_console())


def build_or_look_below(composition: Mapping[str, Any]) -> "Source":
    """Build a source; where its folder can't be one, tell the broken images below it as well.

    Raises:
        UserError: the source is wrong.
    """
    from clipadapt.data.broken import find_broken
    from clipadapt.data.folders import lazy_images
    from clipadapt.data.listing import images_in
    from clipadapt.errors import DataError

    try:
        return config.build_source(composition)
    except DataError as error:
        root = os.path.expanduser(str(composition["data"].get("root", "")))
        broken = find_broken(lazy_images(images_in(root)), decode=True) if os.path.isdir(root) else {}
        if not broken:
            raise
        config.raise_all([str(error), *broken.values()])
        raise


def take_duplicates(settings: Sequence[str]) -> tuple[list[str], float | None]:
    """Return the settings without `duplicates=…`, and the cosine that it asks for; None if it isn't given or false.

    Raises:
        UserError: its value is neither true, false nor a cosine.
    """
    rest = [word for word in settings if not word.startswith(DUPLICATES)]
    given = next((word.removeprefix(DUPLICATES) for word in settings if word.startswith(DUPLICATES)), "false").lower()
    if given in ("true", "false"):
        return rest, USUAL_COSINE if given == "true" else None
    try:
        cosine = float(given)
    except ValueError:
        cosine = 0.0
    if not 0 < cosine <= 1:
        raise UserError(f"{DUPLICATES}{given} does not fit: it must be true, false or a cosine above 0, such as 0.99")
    return rest, cosine


def composed(settings: Sequence[str], folder: str | None, verb: str, also: Sequence[str] = ()) -> dict[str, Any]:
    """Compose the settings of a run on the data `NAME data.key=value …`, or `data=NAME data.key=value …`.

    Args:
        settings: the words.
        folder: a folder of YAML files of one's own.
        verb: the command, for messages.
        also: other groups and keys that have a meaning here.

    Raises:
        UserError: the words name no data, or have settings of anything else.
    """
    name, *rest = settings or [""]
    words = [f"data={name}", *rest] if name and "=" not in name and not name.startswith("-") else [*settings]
    keys = [word.partition("=")[0].lstrip("+~") for word in words]
    if "data" not in keys:
        raise UserError(f"say which data: clipadapt data {verb} folder data.root=my_images")
    config.raise_all(
        f"{word} has no meaning here: settings of data are written data.key=value"
        for word, key in zip(words, keys, strict=True)
        if "=" in word and not {key, key.partition(".")[0]} & {"data", *also}
    )
    return config.compose(words, folder)
