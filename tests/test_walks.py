"""The walks of CONTRIBUTING.md lead through code that is there, and the shapes on their way are those of the code."""

import ast
import re
from pathlib import Path

import pytest
import torch

import clipadapt
from clipadapt.adaptations.context import Context
from clipadapt.tasks.classification import Classifier

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
WALKS = PAGE.partition("## Walks\n")[2].partition("\n## ")[0]
STEPS = re.findall(r"^\d+\. `(\S+\.py)`(?: `([\w.]+)`)? →", WALKS, re.MULTILINE)
TABLE = PAGE.partition("## Places touched to add\n")[2].partition("\n## ")[0]


def find(source: str, dotted: str) -> ast.AST:
    """Return the definition of a dotted name in a source."""
    node: ast.AST = ast.parse(source)
    for name in dotted.split("."):
        defined = (ast.ClassDef, ast.FunctionDef)
        node = next(child for child in ast.iter_child_nodes(node) if isinstance(child, defined) and child.name == name)
    return node


def test_there_are_five_walks_of_at_most_ten_steps():
    walks = WALKS.split("\n**")[1:]
    counts = [len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) for walk in walks]
    assert len(counts) == 5 and max(counts) <= 10
    assert len(STEPS) == sum(counts)


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_every_step_is_there(file, name):
    source = (ROOT / "clipadapt" / file).read_text()
    assert not name or find(source, name)


def test_every_test_of_the_table_is_there():
    files = re.findall(r"`(tests/\S+\.py)`", TABLE)
    assert len(files) == 6 and all((ROOT / file).is_file() for file in files)


def test_the_shapes_on_the_way_of_a_class_name(clip):
    task = clipadapt.load_task("digits", shots=16)
    classifier = Classifier(clip, Context(clip, task), task.class_names)
    assert (len(task.support), len(task.tests["test"])) == (160, 797)
    assert (classifier.image_cut, classifier.text_cut) == ("features", "words")
    (prompt,) = classifier.adaptation.prompts(["seven"])[0]
    assert len(prompt) == 18 and prompt[16:] == ["seven", "."]
    assert len(clip.tokenizer.sequence(prompt)) == 20
    ((rows,),) = classifier.text_start.chunks
    assert rows.values.shape == (47, 128) and rows.layout.prefix == 17
    assert [(stack.count, stack.length) for stack in rows.layout.stacks] == [(10, 3)]
    pixels = torch.zeros(2, 3, 32, 32)
    assert classifier.prefix(pixels).shape == (2, 128)
    assert classifier.text_features().shape == (10, 1, 128)
    output = classifier.output(pixels)
    assert (output.logits.shape, output.image.shape, output.text.shape) == ((2, 10), (2, 128), (10, 128))
