"""Reader and writer of YAML files with plain values only, so that untrusted files are safe to read."""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from clipadapt.errors import UserError

MAX_BYTES, MAX_VALUES, MAX_KEYS, MAX_KEY_LENGTH, MAX_DEPTH = 8_000_000, 100_000, 2_000, 100, 20
"""Limits of a file; settings have about 3,000 bytes, 5 levels and 100 keys, and more with lists of class names; 50
sentences of each of 1,000 classes have 4 million bytes."""

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PLAIN = [None, *(f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map"))]


INTERPOLATION = re.compile(r"(\\*)\$\{")
"""The beginning of an interpolation, which a backslash before it makes text, as for OmegaConf."""


def escape(text: str) -> str:
    """Return a text in which `${` begins no interpolation."""
    return INTERPOLATION.sub(r"\1\1\\${", text)


def unescape(text: str) -> str:
    """Return a text without what `escape` put into it."""
    return INTERPOLATION.sub(lambda found: found[1][: len(found[1]) // 2] + "${", text)


def interpolates(text: str) -> bool:
    """Return whether a text has an interpolation that isn't escaped."""
    return any(len(found[1]) % 2 == 0 for found in INTERPOLATION.finditer(text))


class PlainLoader(Loader):
    """YAML loader of text, numbers, booleans, null, lists and tables with unique keys."""

    yaml_constructors: ClassVar = {tag: SafeConstructor.yaml_constructors[tag] for tag in PLAIN}

    keys = 0

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """Return the text of a scalar, with `${` where it was escaped."""
        return unescape(super().construct_scalar(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str | int, Any]:
        """Return a table whose keys are texts or whole numbers, and unique."""
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
    """YAML dumper for `read_plain_yaml`: without references, so that a repeated value is written each time."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: write no references between values."""
        return True

    def represent_scalar(self, tag: str, value: str, style: str | None = None) -> yaml.ScalarNode:
        """Return the node of a scalar, with `${` escaped."""
        return super().represent_scalar(tag, escape(value), style)


def dump_plain_yaml(table: dict[str, Any]) -> str:
    """Return a table of plain values as YAML, its keys in their order."""
    return yaml.dump(table, Dumper=PlainDumper, sort_keys=False)


def read_plain_yaml(path: Path) -> dict[str, Any]:
    r"""Read the table in a YAML file of bounded size and depth, without tags, references, merges or interpolations.

    An escaped `\${` is the text `${`, which nothing resolves.

    Raises:
        UserError: The file can't be read, or has anything but a table of plain values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    return parse_plain_yaml(content, path)


def parse_plain_yaml(content: bytes, path: str | Path) -> dict[str, Any]:
    """Return the table in the content of a YAML file; what is allowed, and errors, as of `read_plain_yaml`.

    Args:
        content: The bytes.
        path: Where they are from, for messages.
    """
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} can't be read: it is larger than {MAX_BYTES // 10**6} MB")
    try:
        text = content.decode("utf-8")
        check_events(text)
        found = yaml.load(text, Loader=PlainLoader)
    except (yaml.YAMLError, ValueError, KeyError) as error:
        raise UserError(f"{path} can't be read: {one_sentence(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} can't be used: it must be a table of key: value lines")
    return found


def check_events(text: str) -> None:
    """Check the parser's events of a YAML text, before any value is built.

    Raises:
        yaml.YAMLError: The text isn't YAML, has too many values, is nested too deeply, or has a reference, tag or
            interpolation.
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
        if isinstance(event, yaml.ScalarEvent) and interpolates(event.value):
            raise refused(event, "an interpolation (${…}) is not allowed")


def refused(place: yaml.Event | yaml.Node, reason: str) -> ConstructorError:
    """Return the error for a part of a file that is not allowed, with its line and the reason."""
    return ConstructorError(None, None, reason, place.start_mark)


def one_sentence(error: Exception) -> str:
    """Return a parser's error as one sentence with its line, without excerpts of the file."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{problem[:200]} (line {mark.line + 1})" if mark else problem[:200]
