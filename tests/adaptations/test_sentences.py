"""Sentences and descriptions of classes: what golden records and contracts don't show."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from clipadapt import config
from clipadapt.adaptations.descriptions import as_clause, name_lengths
from clipadapt.errors import UserError
from clipadapt.tasks.classification import Classification, Classifier
from tests.small import CLASS_NAMES, TEMPLATES, adaptation, close, golden, needed

NODE = "method.adaptation."
UNEQUAL = {name: [f"{name} is {number}." for number in range(1 + place)] for place, name in enumerate(CLASS_NAMES)}


def built(name, key, table, *overrides, names=CLASS_NAMES, words=None):
    task = SimpleNamespace(class_names=names, templates=TEMPLATES, words=words or {})
    return adaptation(name, config.setting(f"{NODE}{key}", table), *overrides, task=task)


def sentences(found, names=CLASS_NAMES):
    return found.find_names(names)


def test_classes_have_different_numbers_of_sentences_in_any_order():
    found = built("class_sentences", "sentences", UNEQUAL)
    assert sentences(found, CLASS_NAMES[::-1]) == [*UNEQUAL.values()][::-1]
    clip, names = golden(), CLASS_NAMES[::-1]
    text = [functional.normalize(clip.text_features([[one] for one in UNEQUAL[name]]), dim=-1) for name in names]
    expected = functional.normalize(torch.stack([own.mean(dim=(0, 1)) for own in text]), dim=-1)
    close(Classifier(clip, found, names).class_embeddings(), expected)


@pytest.mark.parametrize(
    "name, key", [("class_sentences", "sentences"), ("class_descriptions", "descriptions")], ids=["cupl", "vcd"]
)
def test_a_class_without_an_entry_is_named_before_anything_is_encoded(name, key):
    for lost in ("tree_frog", "T-shirt"):
        table = {label: own for label, own in UNEQUAL.items() if label != lost}
        with pytest.raises(UserError, match=f"there are no {key} of the class {lost}: add some under its name"):
            built(name, key, table)
    with pytest.raises(UserError, match=f"no {key} of the class owl"):
        Classifier(golden(), built(name, key, UNEQUAL), ["cat", "owl"])


def test_a_key_that_is_only_written_in_another_way_is_named():
    table = {label.upper(): own for label, own in UNEQUAL.items()}
    with pytest.raises(UserError, match=f"there is '{CLASS_NAMES[0].upper()}', which is written in another way"):
        built("class_sentences", "sentences", table)


def test_an_empty_sentence_is_refused():
    with pytest.raises(UserError, match=f"a sentence of the class {CLASS_NAMES[0]} in `sentences` is empty"):
        built("class_sentences", "sentences", UNEQUAL | {CLASS_NAMES[0]: ["A sentence.", " "]})


def test_no_sentence_is_none_but_no_descriptor_is_one():
    with pytest.raises(UserError, match="there are no sentences of the class cat"):
        built("class_sentences", "sentences", UNEQUAL | {"cat": []})
    found = built("class_descriptions", "descriptions", UNEQUAL | {"cat": []})
    assert sentences(found, ["cat"]) == [["cat, which has "]]


def test_a_class_of_several_names():
    words = {"pet": ["cat", "golden_retriever"], "tree_frog": ["frog"]}
    table = {"cat": ["fur"], "golden retriever": ["used for hunting", "four legs"], "tree frog": ["legs"]}
    found = built("class_descriptions", "descriptions", table, names=["pet", "tree_frog"], words=words)
    of_pets = ["cat, which has fur", "golden retriever, which is used for hunting"]
    of_pets.append("golden retriever, which has four legs")
    assert sentences(found, ["pet", "tree_frog"]) == [of_pets, ["frog, which has legs"]]


def test_descriptors_become_clauses_by_their_first_letters():
    given = ["antlers", "used for oil", "often red", "canine teeth", "may be dry", "four legs", "", "Used"]
    made = [
        "is antlers",
        "is used for oil",
        "often red",
        "canine teeth",
        "may be dry",
        "has four legs",
        "has ",
        "has Used",
    ]
    assert [as_clause(one) for one in given] == [f"which {one}" for one in made]


def test_where_the_name_stands():
    options = [f"{NODE}before_text='A photo of a '", f"{NODE}between_text=' - '", f"{NODE}after_text=."]
    table = {"tree_frog": ["red eyes"]}
    for place, clauses, expected in (
        ("prepend", "true", "A photo of a tree frog - which has red eyes."),
        ("append", "true", "which has red eyes - tree frog"),
        ("append", "false", "red eyes - tree frog"),
    ):
        own = [*options, f"{NODE}name_place={place}", f"{NODE}clauses={clauses}"]
        assert sentences(
            built("class_descriptions", "descriptions", table, *own, names=["tree_frog"]), ["tree_frog"]
        ) == [[expected]]


def test_a_sentence_too_long_is_cut_or_refused():
    long = "over hill and dale, " * 40
    table = {name: [long, "short"] for name in CLASS_NAMES}
    found = Classifier(golden(), built("class_sentences", "sentences", table), CLASS_NAMES)
    assert found.class_embeddings().isfinite().all()
    ids = found.adaptation.prompts([long])[0][0]
    assert len(ids) == golden().tokenizer.length - 2
    assert golden().tokenizer.encode(long)[: len(ids)] == ids
    with pytest.raises(UserError, match=r"tokens .* but the text tower reads at most 77"):
        Classifier(golden(), built("class_sentences", "sentences", table, f"{NODE}truncate=false"), CLASS_NAMES)


def test_random_texts_are_those_of_their_seed_and_of_all_classes():
    found, again, other = (adaptation("random_texts", f"{NODE}seed={seed}") for seed in (1, 1, 2))
    assert sentences(found) == sentences(again) != sentences(other)
    (cat, *_, plane) = sentences(found)
    assert [text.replace("a cat,", "a aeroplane,") for text in cat] == plane and len({*cat}) > 20 and len(cat) == 30
    assert cat[0].startswith("A photo of a cat, which ") and cat[0].endswith(".")
    assert name_lengths(CLASS_NAMES) == (1, 7, 7)
    assert name_lengths(["sea lion", "tree frog"]) == (2, 4, 4)


def test_random_characters_come_in_groups_longer_than_a_word():
    task = SimpleNamespace(class_names=["sea lion", "tree frog"], templates=TEMPLATES, words={})
    found = adaptation("random_texts", f"{NODE}count=1", f"{NODE}characters=z", f"{NODE}words=[violins]", task=task)
    assert sentences(found, ["owl"]) == [
        ["A photo of a owl, which has viol viol.", "A photo of a owl, which has zzz, zzz."]
    ]


def test_a_file_becomes_a_table_of_the_settings(tmp_path):
    for name, dump in (("own.json", json.dumps), ("own.yaml", str)):
        (tmp_path / name).write_text(dump({"7": ["A seven."], "cat": ["fur"]}))
        found = config.compose(["method=cupl", f"{NODE}sentences={tmp_path / name}"])
        assert found["method"]["adaptation"]["sentences"] == {"7": ["A seven."], "cat": ["fur"]}
    (tmp_path / "own.yaml").write_text("7: [A seven.]")
    found = config.compose(["method=vcd", f"{NODE}descriptions={tmp_path / 'own.yaml'}"])
    assert found["method"]["adaptation"]["descriptions"] == {"7": ["A seven."]}


@pytest.mark.parametrize(
    "content, fault",
    [("cat: 5", "it must be a table of text to a list of text"), ("[a]", "must be a table"), (None, "can't be read")],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, content, fault):
    if content is not None:
        (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"own\.yaml.*{fault}"):
        config.compose(["method=cupl", f"{NODE}sentences={tmp_path / 'own.yaml'}"])


def test_a_method_that_needs_a_file_says_so_and_is_not_among_all():
    with pytest.raises(UserError, match=r"method\.adaptation\.sentences has no value yet"):
        config.compose(["method=cupl"])
    assert {*config.options("method")} - {*config.complete_methods()} == {"cupl", "vcd"}
    assert needed("cupl", ["a"]) and not needed("coop", ["a"])


def test_a_test_set_with_a_class_that_has_no_sentences_is_refused_before_the_fit():
    found, tests = built("class_sentences", "sentences", UNEQUAL), {"new": SimpleNamespace(class_names=["cat", "owl"])}
    with pytest.raises(UserError, match="there are no sentences of the class owl"):
        Classification().check(found, SimpleNamespace(class_names=CLASS_NAMES, tests=tests))
