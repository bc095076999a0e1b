"""Tables of a method's settings and their sources, from the YAML in conf/, for the page about the method."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONF = Path(__file__).resolve().parent.parent / "conf"
KEY = re.compile(r"^( *)([\w]+):(?: |$)")
MOST = 44
"""Characters of a value beyond which a list is shown by its length."""
FIT = {"optimizer@engine.optimizer": "sgd", "schedule@engine.schedule": "cosine"}
"""The parts of a fit, and what they are unless a method says otherwise (conf/engine/default.yaml)."""
HEAD = "| setting | what it is | source of the value |\n|---|---|---|"
SHOWN_ABOVE = ("method.name", "method.title", "method.paper", "method.arxiv")
MEANINGS = {
    "optimizer.lr": "learning rate",
    "optimizer.momentum": "momentum of the steps",
    "optimizer.betas": "decay rates of the averages of the gradient and of its square",
    "optimizer.eps": "added to the denominator of a step",
    "optimizer.weight_decay": "weight decay",
    "schedule.warmup_epochs": "epochs of the warm-up",
    "schedule.warmup_lr": "learning rate of the warm-up",
    "schedule.minimum_lr": "learning rate that the cosine leads to",
}
"""What the settings of optimizers and schedules are; the comments beside them say where their values come from."""


class Row(NamedTuple):
    """A setting: its dotted key, its value, what it is, and where the value comes from."""

    key: str
    value: Any
    meaning: str
    source: str


class Section(NamedTuple):
    """Settings of one place: the place, a link to the page of the part that stands there if one does, the settings."""

    place: str
    link: str | None
    rows: list[Row]


def read(group: str, name: str) -> str:
    """Return the text of a YAML in conf/."""
    return (CONF / group / f"{name}.yaml").read_text()


def header(text: str) -> str:
    """Return the comment at the head of a YAML as one paragraph."""
    lines = text.partition("\ndefaults:")[0].partition("\n_target_:")[0].splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line)


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every setting; a table by shots is one value."""
    for key, value in node.items():
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "_target_" and key != "_partial_":
            yield f"{prefix}{key}", value


def comments(text: str) -> dict[str, str]:
    """Return the comment of every key by its dotted name: beside it, above it, or on the lines that follow."""
    found: dict[str, str] = {}
    above, names = "", [""]
    for line in text.splitlines():
        comment = re.search(r"(?:^|\s)# ?(.*)$", line)
        said = comment[1].strip() if comment else ""
        if key := KEY.match(line):
            names = [*names[: len(key[1]) // 2], key[2]]
            found[".".join(names)] = f"{above} {said}".strip()
            above = ""
        elif comment and line.index("#") <= 2 * len(names):
            above = f"{above} {said}".strip()
        elif comment and ".".join(names) in found:
            found[".".join(names)] = f"{found['.'.join(names)]} {said}".strip()
    return found


def shown(key: str, value: Any) -> str:
    """Return a setting as it stands on a command line, or the length of a long list."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()
    if isinstance(value, dict):
        return f"`{key}` by shots: {', '.join(f'{shots}: {each}' for shots, each in value.items())}"
    if isinstance(value, list) and len(text) > MOST:
        return f"`{key}` ({len(value)} values)"
    return f"`{key}={text}`"


def plain(text: str) -> str:
    """Return a comment as Markdown that shows the comment as it is written."""
    return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", text)


def parts(method: str) -> dict[str, str]:
    """Return the files of conf/ that a method is made of, by where they belong: `adaptation@method.adaptation`."""
    chosen = [item for item in yaml.safe_load(read("method", method))["defaults"] if isinstance(item, dict)]
    found = {key: name for item in chosen for key, name in item.items()}
    own = {key.removeprefix("override ").removeprefix("/"): name for key, name in found.items()}
    fitted = FIT if "objective@method.objective" in own else {}
    return {**{key: name for key, name in own.items() if key not in fitted}, **fitted, **own}


def sections(method: str) -> Iterator[Section]:
    """Yield a method's settings by where they belong: its parts, what else it sets, the optimizer and its schedule."""
    text = read("method", method)
    given, sources = dict(leaves(yaml.safe_load(text))), comments(text)
    chosen = parts(method)
    for part in [part for part in chosen if part not in FIT]:
        yield section(part, chosen[part], given, sources)
    meanings = comments((CONF / "config.yaml").read_text())
    meanings |= {f"engine.{key}": meaning for key, meaning in comments(read("engine", "default")).items()}
    for place in ("method", "engine"):
        own = [key for key in given if re.fullmatch(rf"{place}\.\w+", key) and key not in SHOWN_ABOVE]
        yield Section(place, None, [Row(key, given[key], meanings[key], sources[key]) for key in own])
    for part in [part for part in chosen if part in FIT]:
        yield section(part, chosen[part], given, sources)


def section(part: str, name: str, given: Mapping[str, Any], sources: Mapping[str, str]) -> Section:
    """Return the settings of a part: those of its file, with the values that the method gives."""
    group, place = part.split("@")
    content = read(group, name)
    beside = comments(content)
    values = {f"{place}.{key}": value for key, value in leaves(yaml.safe_load(content))}
    values |= {key: value for key, value in given.items() if key.startswith(f"{place}.")}
    rows = []
    for key, value in values.items():
        said, source = beside.get(key.removeprefix(f"{place}."), ""), sources.get(key, "")
        if part in FIT:
            rows.append(Row(key, value, MEANINGS[key.removeprefix("engine.")], source or said * (key not in sources)))
        else:
            rows.append(Row(key, value, said, source))
    return Section(place, f"[{name}](../settings/{group}.md#{name})", rows)


def tables(method: str) -> str:
    """Return the tables of a method's settings as Markdown, with where they are from."""
    found = []
    if source := header(read("method", method)).partition("Settings:")[2].strip():
        found.append(f"Source of the values: {plain(source)}")
    for place, link, rows in sections(method):
        lines = [
            f"| {shown(row.key.removeprefix(f'{place}.'), row.value)} | {plain(row.meaning)} | {plain(row.source)} |"
            for row in rows
        ]
        if link or rows:
            found.append(f"`{place}`: {link}" if link else f"`{place}`:")
        if rows:
            found.append("\n".join([HEAD, *lines]))
    return "\n\n".join(found)


def paper(method: str) -> str:
    """Return the line about a method's paper as Markdown."""
    node = yaml.safe_load(read("method", method))["method"]
    arxiv = node.get("arxiv")
    return plain(node["paper"]) + (f", [arXiv:{arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else "")


def title(method: str) -> str:
    """Return a method's name in print."""
    return yaml.safe_load(read("method", method))["method"]["title"]
