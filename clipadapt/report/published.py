"""Published results to show beside measured ones, marked as published and with their source."""

from collections.abc import Container, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clipadapt.report.sheets import Sheet

FILE = Path(__file__).with_name("published.yaml")
WEIGHTS, ZERO_SHOT = "openai", "CLIP"


@cache
def published() -> dict[str, list[dict[str, Any]]]:
    """Return the tables of published.yaml by protocol."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(FILE.read_text())
    return found


def published_sheets(protocol: str, backbone: Mapping[str, Any], titles: Container[str]) -> list[Sheet]:
    """Return the published tables of a protocol for a backbone, with the lines of zero-shot CLIP and the given methods.

    All of them were measured with OpenAI's weights, so other weights have none. Tables with none of the methods are
    left out.

    Args:
        protocol: the protocol's name.
        backbone: a run's settings under `backbone`.
        titles: titles of the methods.
    """
    if backbone["pretrained"] != WEIGHTS or backbone.get("image_size"):
        return []
    tables = [table for table in published().get(protocol, []) if table["backbone"] == backbone["name"]]
    return [sheet(table, titles) for table in tables if any(method_title(name) in titles for name, *_ in table["rows"])]


def method_title(name: str) -> str:
    """Return the method's title in a line's name: "CoOp" of "CoOp, context of 4"."""
    return name.partition(",")[0]


def sheet(table: dict[str, Any], titles: Container[str]) -> Sheet:
    """Return a published table with the lines of zero-shot CLIP and the given methods."""
    rows = [row for row in table["rows"] if row[0] == ZERO_SHOT or method_title(row[0]) in titles]
    lines = [[name, *(f"{value:.2f}" for value in values)] for name, *values in rows]
    title = f"Published, not measured here: accuracy (%) of {table['backbone']}, {table['title']}"
    return Sheet(title, table["head"], [lines], 1, [f"source: {table['source']}"])
