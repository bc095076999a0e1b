"""Methods listed by what they need, and one of them shown."""

import re

import pytest

from clipadapt import config
from clipadapt.cli import main
from clipadapt.runs import method_facts as facts


@pytest.fixture(scope="module")
def found(clip):
    return {name: facts.find_facts(clip, name) for name in config.few_shot_methods()}


def below_headings(lines):
    """The heading that each listed method is below."""
    found, heading = {}, None
    for line in lines:
        if line.startswith("  "):
            found[line.split()[0]] = heading
        else:
            heading = line.rpartition(" (")[0]
    return found


def test_every_method_is_listed_once_below_what_it_needs(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines if line.startswith("  ")) == sorted(config.options("method"))
    below = below_headings(lines)
    assert below["zero_shot"] == "From class names alone" and below["coop"] == "Learned from labelled images"
    assert below["upl"] == "Learned from images without labels"
    assert below["tpt"] == "Adapted to each test image, from class names alone"
    assert below["tda"] == "Adapted along the stream of test images, from class names alone"
    assert below["transclip_few_shot"] == "Adapted to all test images, from labelled images"
    assert any("CLIP-Adapter (Gao et al., IJCV 2024), arXiv 2110.04544" in line for line in lines)


def test_facts_are_those_of_the_parts(found, clip):
    coop, probe, lora = found["coop"], found["linear_probe"], found["clip_lora"]
    assert (coop.numbers, coop.changes, coop.other_classes) == (16 * 128, "text tower", True)
    assert (probe.numbers, probe.changes, probe.other_classes) == (10 * 128 + 10, "features", False)
    assert found["dept"].other_classes and found["mmrl"].other_classes and not found["gda_clip"].other_classes
    assert lora.changes == "both towers" and found["gda_clip"].extras == ("validation images",)
    assert {one.when for one in found.values()} == {facts.BEFORE}
    assert {name for name, one in found.items() if one.needs == facts.NAMES} == {"zero_shot", "waffle"}


def test_one_method_is_shown_with_settings_that_can_be_given(capsys):
    assert main(["methods", "tip_adapter"]) == 0
    said = capsys.readouterr().out
    assert (
        "arxiv.org/abs/2207.09519" in said and "needs labelled images, and validation images; adapts before use" in said
    )
    settings = [line.strip() for line in said.splitlines() if re.match(r"  (method|engine)\.", line)]
    assert "method.adaptation.alpha=1.17" in settings
    assert config.compose(["method=tip_adapter", *settings]) == config.compose(["method=tip_adapter"])


def test_settings_of_the_users_are_named(capsys):
    assert main(["methods", "vcd"]) == 0
    assert "method.adaptation.descriptions=…  is yours to give" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cop"], "there is no method cop: did you mean 'coop'?"),
        (["coop", "kgcoop"], "shows one method"),
        (["coop", "shots=4"], "there is no key shots"),
    ],
)
def test_what_cannot_be_shown(words, said, capsys):
    assert main(["methods", *words]) == 2
    assert said in capsys.readouterr().err
