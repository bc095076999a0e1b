"""Published figures: complete, and consistent where they can be checked."""

import pytest

from clipadapt.config import options
from clipadapt.report.published import published, published_sheets

TABLES = [(protocol, table) for protocol, tables in published().items() for table in tables]


def test_protocols_are_those_of_the_recipes():
    assert {*published()} <= {*options("recipe")}


@pytest.mark.parametrize("protocol, table", TABLES)
def test_every_row_is_as_long_as_its_head_and_has_a_source(protocol, table):
    assert all(len(row) == len(table["head"]) for row in table["rows"]) and table["source"]


@pytest.mark.parametrize("table", [table for protocol, table in TABLES if protocol == "base_to_new"])
def test_harmonic_means_are_those_of_the_averages(table):
    for _, base, new, mean in table["rows"]:
        assert 2 * base * new / (base + new) == pytest.approx(mean, abs=0.02)


def test_they_stand_beside_the_same_backbone_alone():
    (sheet,) = published_sheets("few_shot", "RN50")
    assert sheet.title.startswith("Published, not measured here") and sheet.notes[0].startswith("source: ")
    assert not published_sheets("few_shot", "tiny") and not published_sheets("compare", "ViT-B-16")
