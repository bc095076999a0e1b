"""The command `clipadapt methods`."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from clipadapt import config
from clipadapt.cli.keys import plain_settings
from clipadapt.config.check import leaves
from clipadapt.config.overrides import Words
from clipadapt.console import print_out
from clipadapt.errors import UserError, nearest

if TYPE_CHECKING:
    from clipadapt.backbone.dual_encoder import DualEncoder
    from clipadapt.runs.method_facts import MethodFacts

YOURS = "???"
"""Value of a setting that is the user's to give."""
DESCRIBED = ("name", "title", "paper", "arxiv")
"""Keys below `method` that say what it is."""


def methods(words: Words) -> None:
    """Run `clipadapt methods [NAME]`: list all methods by what they need, or show one."""
    names = [word for word in words.settings if "=" not in word]
    plain_settings(Words(words.options, [word for word in words.settings if word not in names]), ())
    folder = words.options.get("--config-dir")
    known = {method["name"]: method for method in config.methods(folder)}
    if len(names) > 1:
        raise UserError("clipadapt methods shows one method, or without a name lists all: give one name")
    if names and names[0] not in known:
        raise UserError(f"there is no method {names[0]}: {nearest(names[0], known)}")
    for line in show_method(known[names[0]], folder) if names else list_methods([*known.values()], folder):
        print_out(line)


def list_methods(known: Sequence[Mapping[str, Any]], folder: str | None) -> Iterator[str]:
    """Yield a line for each method, below a heading of those that need the same, at the same time."""
    from clipadapt import api  # imports PyTorch
    from clipadapt.runs import method_facts as facts

    clip = api.load_backbone()
    found = {method["name"]: read_facts(clip, method["name"], folder) for method in known}
    width = max(map(len, found))
    groups = [(needs, when) for when in facts.TIMES for needs in facts.NEEDS]
    for needs, when in groups:
        chosen = [
            (one, fact) for one in known if (fact := found[one["name"]]) and (fact.needs, fact.when) == (needs, when)
        ]
        if chosen:
            yield f"{heading(needs, when)} ({len(chosen)})"
            yield from (f"  {one['name']:{width}}  {describe(fact)}  {cite(one)}" for one, fact in chosen)
    others = [one for one in known if found[one["name"]] is None]
    if others:
        yield f"With settings of yours ({len(others)}): clipadapt methods NAME says which"
        yield from (f"  {one['name']:{width}}  {cite(one)}" for one in others)
    yield (
        f"Numbers learned are those for {facts.CLASSES} classes on the embedded backbone, with {facts.IMAGES_A_CLASS} "
        "images a class. clipadapt methods NAME shows one."
    )


def show_method(method: Mapping[str, Any], folder: str | None) -> Iterator[str]:
    """Yield lines on a method: what it is and needs, its settings, and a command that runs it."""
    from clipadapt import api  # imports PyTorch

    name, found = method["name"], read_facts(api.load_backbone(), method["name"], folder)
    yield f"{method['title'] or name}: {method['paper'] or 'no paper given'}"
    if method["arxiv"]:
        yield f"  https://arxiv.org/abs/{method['arxiv']}"
    if found is not None:
        extras = "".join(f", and {extra}" for extra in found.extras)
        yield f"  needs {found.needs}{extras}; adapts {found.when}; {', '.join(columns(found))}"
    settings = list_settings(name, folder)
    given = [key for key, value in settings.items() if value == YOURS]
    yield f"Settings, with their sources in {config.options('method', folder)[name]}"
    yield from (f"  {config.setting(key, value)}" for key, value in settings.items() if value != YOURS)
    yield from (f"  {key}=…  is yours to give" for key in given)
    yield "Example"
    yield " ".join(
        [f"  clipadapt method={name} data=folder data.root=my_images shots=16", *(f"{key}=…" for key in given)]
    )


def list_settings(method: str, folder: str | None) -> dict[str, Any]:
    """Return the settings of a method's YAML by dotted key."""
    found = config.read_method(method, folder)
    named = {key: value for key, value in leaves(found) if not key.rpartition(".")[2].startswith("_")}
    return {key: value for key, value in named.items() if key.removeprefix("method.") not in DESCRIBED and value != {}}


def read_facts(clip: "DualEncoder", method: str, folder: str | None) -> "MethodFacts | None":
    """Return the facts of a method on a backbone; None if it can't be built as its YAML stands."""
    from clipadapt.runs.method_facts import find_facts  # imports PyTorch

    with warnings.catch_warnings(), suppress(UserError):
        warnings.simplefilter("ignore")  # class names stand for any
        return find_facts(clip, method, folder)
    return None


def heading(needs: str, when: str) -> str:
    """Return the heading of methods that need the same, and adapt at the same time."""
    from clipadapt.runs import method_facts as facts

    start = {facts.LABELS: "Learned from", facts.IMAGES: "Learned from", facts.NAMES: "From"}[needs]
    return f"{start} {needs}" if when == facts.BEFORE else f"Adapted {when}, from {needs}"


def describe(found: "MethodFacts") -> str:
    """Return what a method learns, what it changes and whether it takes other classes, in columns."""
    numbers, changes, classes = columns(found)
    return f"{numbers:>16}  {changes:11}  {classes:17}"


def columns(found: "MethodFacts") -> tuple[str, str, str]:
    """Return how many numbers a method learns, what it changes, and whether it takes other classes, in words."""
    numbers = f"{found.numbers:,} numbers" if found.numbers else "no numbers"
    return numbers, found.changes, "other classes too" if found.other_classes else "its classes"


def cite(method: Mapping[str, Any]) -> str:
    """Return a method's title, authors, year and arXiv id."""
    authors = re.search(r"\([^()]*\)$", method["paper"] or "")
    arxiv = f", arXiv {method['arxiv']}" if method["arxiv"] else ""
    return f"{method['title'] or method['name']}{f' {authors[0]}' if authors else ''}{arxiv}"
