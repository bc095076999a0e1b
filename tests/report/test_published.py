"""Published figures: complete, and consistent where they can be checked."""

import pytest

from clipadapt.config import methods, options
from clipadapt.report.published import method_title, published, published_sheets

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


def test_every_row_is_zero_shot_clip_or_one_of_the_methods():
    titles = {"CLIP", *(method["title"] for method in methods())}
    assert {method_title(name) for _, table in TABLES for name, *_ in table["rows"]} <= titles


def backbone(name, pretrained="openai"):
    return {"name": name, "pretrained": pretrained, "seed": 0}


def test_they_stand_beside_the_same_backbone_alone():
    (sheet,) = published_sheets("few_shot", backbone("RN50"), ["Tip-Adapter"])
    assert sheet.title.startswith("Published, not measured here") and sheet.notes[0].startswith("source: ")
    for other in ("tiny", None, "laion2b_s34b_b88k", "my_weights.pt"):
        assert not published_sheets("few_shot", backbone("RN50", other), ["Tip-Adapter"])
    assert not published_sheets("few_shot", backbone("ViT-L-14"), ["Tip-Adapter"])
    assert not published_sheets("compare", backbone("RN50"), ["Tip-Adapter"])


def test_they_are_those_of_zero_shot_clip_and_of_the_methods_that_were_run():
    sheets = published_sheets("base_to_new", backbone("ViT-B-16"), ["Zero-shot CLIP", "CoOp", "My method"])
    names = [[name for name, *_ in lines] for sheet in sheets for lines in sheet.groups]
    assert names == [["CLIP", "CoOp"], ["CoOp, context of 4"]]
    assert "16 shots, average of 11 data sets" in sheets[0].title
    assert not published_sheets("base_to_new", backbone("ViT-B-16"), ["Zero-shot CLIP", "My method"])
