"""Every method has a page with what it does, its equation, when to take it, and its settings as they are."""

import importlib.util
import re
import shlex

import pytest
import yaml

from clipadapt import config
from tests.pages import DOCS, ROOT, check_command, commands, composed

METHODS = sorted(config.options("method"))
SPEC = importlib.util.spec_from_file_location("method_settings", DOCS / "method_settings.py")
assert SPEC and SPEC.loader
SPEC.loader.exec_module(method_settings := importlib.util.module_from_spec(SPEC))
NAVIGATION = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]


def text(method: str) -> str:
    return (DOCS / "methods" / f"{method}.md").read_text()


def value(node: dict, key: str):
    """The value of a dotted key."""
    for part in key.split("."):
        node = node[part]
    return node


def test_every_method_has_a_page_and_every_page_a_method():
    assert sorted(path.stem for path in (DOCS / "methods").glob("*.md")) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_page_has_all_its_parts(method):
    title = method_settings.title(method)
    heading, what, equation, *_ = text(method).split("\n\n")
    assert heading == f"# {title}" and f"- {title}: methods/{method}.md" in NAVIGATION
    assert len(re.findall(r"[.:](?:\s|$)", what)) >= 3, "what the method does is told in three sentences"
    assert equation.startswith("```math\n") and equation.endswith("\n```")
    assert re.findall(r"^## (.*)$", text(method), re.MULTILINE) == ["When to take it", "Settings"]
    settings = f"The settings, with their sources: [conf/method/{method}.yaml](../../conf/method/{method}.yaml)."
    assert text(method).endswith(f"\n{settings}\n")


@pytest.mark.parametrize("method", METHODS)
def test_the_first_command_is_the_method_and_has_the_settings_of_the_page(method):
    run = composed(tuple(shlex.split(commands(DOCS / "methods" / f"{method}.md")[0])[1:]))
    assert run["method"]["name"] == method
    rows = {row.key: row.value for section in method_settings.sections(method) for row in section.rows}
    rows = {key: own for key, own in rows.items() if own != "???"}  # those the user gives
    assert rows == {key: value(run, key) for key in rows}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_further_commands_are_composed(method):
    for command in commands(DOCS / "methods" / f"{method}.md")[1:]:
        check_command(command)


def test_a_setting_is_shown_with_its_meaning_and_source():
    lines = method_settings.tables("kgcoop").splitlines()
    assert "| `weight=8.0` | weight of the distance | trainers/kgcoop.py: W |" in lines
    assert any(line.startswith("| `batch_size=128` | images a step") for line in lines)
    assert "`method.objective`: [text_consistency](../settings/objective.md#text_consistency)" in lines


def test_a_comment_over_several_lines_is_one_source():
    found = method_settings.comments("a:\n  b: 1   # one\n         # two\n  # above\n  c: 2\n")
    assert found["a.b"] == "one two" and found["a.c"] == "above"


@pytest.mark.parametrize("group", sorted({path.parent.name for path in (ROOT / "conf").glob("*/*.yaml")}))
def test_every_group_of_settings_has_a_page(group):
    assert f"settings/{group}.md" in NAVIGATION


def test_the_api_has_every_public_name():
    import clipadapt

    shown = re.findall(r"^::: clipadapt\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(clipadapt.__all__)


def test_every_page_is_reached():
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages <= {*re.findall(r"\S+\.md$", NAVIGATION, re.MULTILINE)}
    assert yaml.safe_load(NAVIGATION)
