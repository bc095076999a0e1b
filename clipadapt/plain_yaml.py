"""YAML files that hold plain values and nothing else: what somebody else wrote is data, whatever it says."""

from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from clipadapt.errors import UserError

MAX_BYTES, MAX_VALUES, MAX_KEYS, MAX_KEY_LENGTH, MAX_DEPTH = 2_000_000, 100_000, 2_000, 100, 20
"""A file of settings has some three thousand bytes, five levels and a hundred keys; lists of class names are longer."""

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PLAIN = [None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))]


class PlainLoader(Loader):
    """Builds text, numbers, true and false, null, lists and tables, each key of a table once."""

    yaml_constructors: ClassVar = {tag: SafeConstructor.yaml_constructors[tag] for tag in PLAIN}

    keys = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str | int, Any]:
        """Return a table whose keys are texts or whole numbers, each there once."""
        self.keys += len(node.value)
        if self.keys > MAX_KEYS:
            raise refused(node, f"there are more than {MAX_KEYS:,} keys")
        table: dict[str | int, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int) or isinstance(key, bool) or len(str(key)) > MAX_KEY_LENGTH:
                raise refused(key_node, f"a key must be a text of at most {MAX_KEY_LENGTH} letters, or a whole number")
            if key in table:
                raise refused(key_node, f"the key '{key}' is there twice")
            table[key] = self.construct_object(value_node, deep=True)
        return table


class PlainDumper(yaml.SafeDumper):
    """Writes what `read_plain_yaml` reads: a value that is there twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: there are no references between values."""
        return True


def dump_plain_yaml(table: dict[str, Any]) -> str:
    """Return a table of plain values as YAML, its keys in their order."""
    return yaml.dump(table, Dumper=PlainDumper, sort_keys=False)


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Return the table in a YAML file: no tags, references, merged tables or interpolations, of bounded size and depth.

    Raises:
        UserError: The file can't be read, or holds anything but a table of plain values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} holds no settings: it is larger than {MAX_BYTES // 10**6} MB")
    try:
        text = content.decode("utf-8")
        check_events(text)
        found = yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise UserError(f"{path} holds no settings that can be read: {one_sentence(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings: it must be a table of key: value lines")
    return found


def check_events(text: str) -> None:
    """Check the parts of a YAML text one after another, before anything is built of them.

    Raises:
        yaml.YAMLError: The text is no YAML, too long, nested too deeply, or has a reference, tag or interpolation.
    """
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=Loader)):
        if number > MAX_VALUES:
            raise refused(event, f"there are more than {MAX_VALUES:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise refused(event, f"tables and lists are nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise refused(event, "a reference (& or *) is not allowed")
        if getattr(event, "tag", None) is not None:
            raise refused(event, f"the tag {event.tag} is not allowed")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise refused(event, "an interpolation (${…}) is not allowed")


def refused(place: yaml.Event | yaml.Node, reason: str) -> ConstructorError:
    """Return the error that says why the part of a file at some place is not allowed."""
    return ConstructorError(None, None, reason, place.start_mark)


def one_sentence(error: Exception) -> str:
    """Return what is wrong with a file and in which line, without the parser's excerpts."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{said[:200]} (line {mark.line + 1})" if mark else said[:200]
