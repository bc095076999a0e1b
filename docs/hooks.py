"""What mkdocs does beyond Markdown: pages of the settings, tables of the methods' settings, links, and equations."""

import posixpath
import re
from pathlib import Path
from typing import Any

import method_settings
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
OTHERS = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "clipadapt/backbone/tiny/README.md": "tiny.md",
}
"""Pages of the repository outside of docs/ to their places in the site."""
LINK = re.compile(r"\[([^\[\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
SETTINGS = re.compile(r"^The settings, with their sources: \[conf/method/(\w+)\.yaml\]\(\S+\)\.$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Show fenced blocks of `math` as equations."""
    fence = {"name": "math", "class": "equation", "format": equation}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}


def equation(source: str, language: str, css_class: str, options: Any, md: Any, **others: Any) -> str:
    """Return the MathML of an equation in LaTeX, which browsers show without a script."""
    lines = [convert(line, display="block") for line in source.split(r"\\")]
    return f'<div class="{css_class}">{"".join(lines)}</div>'


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages of the settings, and those of the repository outside of docs/."""
    for origin, place in OTHERS.items():
        files.append(File.generated(config, place, content=(ROOT / origin).read_text()))
    for group, paths in groups().items():
        files.append(File.generated(config, f"settings/{group}.md", content=settings_page(group, paths)))


def groups() -> dict[str, list[Path]]:
    """Return the YAML files of each group of settings."""
    found = {folder.name: sorted(folder.glob("*.yaml")) for folder in sorted(CONF.iterdir()) if folder.is_dir()}
    found = {group: paths for group, paths in found.items() if paths}
    return {"config": [CONF / "config.yaml"], **found, "launcher": sorted((CONF / "hydra/launcher").glob("*.yaml"))}


def settings_page(group: str, paths: list[Path]) -> str:
    """Return the page of a group of settings: each of its files as it is, with its comments."""
    shown = [f"## {path.stem} {{#{path.stem}}}\n\n```yaml\n{path.read_text().strip()}\n```" for path in paths]
    folder = paths[0].parent.relative_to(ROOT).as_posix()
    return "\n\n".join([f"# Settings: {group}", f"What stands in `{folder}/`, as it is.", *shown]) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the settings of a method, and lead links of the repository to pages of the site."""
    place = page.file.src_uri
    origin = next((path for path, where in OTHERS.items() if where == place), f"docs/{place}")
    if found := SETTINGS.search(markdown):
        markdown = with_settings(markdown, found[1])
    return LINK.sub(lambda link: led(*link.groups(""), origin, place), markdown)


def with_settings(markdown: str, method: str) -> str:
    """Return a method's page with the line about its paper, and the table of its settings."""
    heading, rest = markdown.split("\n", maxsplit=1)
    tables = method_settings.tables(method)
    return f"{heading}\n\n{method_settings.paper(method)}\n{SETTINGS.sub(lambda _: tables, rest)}"


def led(text: str, target: str, anchor: str, origin: str, place: str) -> str:
    """Return a link of the repository as one of the site, or as text and path where the site has no such page.

    Args:
        text: what is shown of the link.
        target: the path that it leads to.
        anchor: the part of the page, with its hash; empty for the whole.
        origin: the file that it stands in, in the repository.
        place: the page that it stands on, in the site.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    if path.startswith("conf/"):
        group = Path(path).parts[1].removesuffix(".yaml")
        there, anchor = f"settings/{group}.md", f"#{Path(path).stem}" if path.endswith(".yaml") else ""
    elif path in OTHERS or path.startswith("docs/") or not (ROOT / path).exists():
        there = OTHERS.get(path, path.removeprefix("docs/"))
    else:
        return f"{text} (`{path}`)"
    return f"[{text}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor})"
