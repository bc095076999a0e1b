"""Figures that papers published, to stand beside those measured here; marked, and with their source."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clipadapt.report.sheets import Sheet

FILE = Path(__file__).with_name("published.yaml")


@cache
def published() -> dict[str, list[dict[str, Any]]]:
    """Tables by protocol, as published.yaml has them."""
    found: dict[str, list[dict[str, Any]]] = yaml.safe_load(FILE.read_text())
    return found


def published_sheets(protocol: str, backbone: str) -> list[Sheet]:
    """The tables of a protocol that were published for a backbone; none for most backbones."""
    return [sheet(table) for table in published().get(protocol, []) if table["backbone"] == backbone]


def sheet(table: dict[str, Any]) -> Sheet:
    """A published table."""
    lines = [[name, *(f"{value:.2f}" for value in values)] for name, *values in table["rows"]]
    title = f"Published, not measured here: accuracy (%) of {table['backbone']}, {table['title']}"
    return Sheet(title, table["head"], [lines], 1, [f"source: {table['source']}"])
