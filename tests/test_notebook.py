"""What a notebook and a prompt show of tasks, backbones, results and predictors."""

from html.parser import HTMLParser

import pytest

import clipadapt
from clipadapt.notebook import html_table

OBJECTS = ("backbone", "task", "result", "predictor")


class Reader(HTMLParser):
    """Reads the cells of tables, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.cells = [], set(), []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.open.append(name)
        self.names.add(name)
        if name in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        self.cells[-1] += text


@pytest.fixture(scope="module")
def objects():
    backbone = clipadapt.load_backbone()
    task = clipadapt.load_task("digits", shots=1)
    result = clipadapt.finetune(backbone, task, "zero_shot", cpu=True, workers=0, cache=None)
    return {"backbone": backbone, "task": task, "result": result, "predictor": result.predictor}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_prompt_shows_one_short_line(objects, name):
    assert len(repr(objects[name])) < 120 and "\n" not in repr(objects[name])


@pytest.mark.parametrize("name", OBJECTS)
def test_a_notebook_shows_a_table(objects, name):
    found = Reader(objects[name]._repr_html_())
    assert found.names == {"table", "caption", "b", "tr", "th", "td"} and len(found.cells) > 6


def test_the_leading_figure_is_shown(objects):
    score = f"{100 * objects['result'].metrics['accuracy']:.1f} %"
    assert repr(objects["result"]) == f"<Result of zero_shot on digits with tiny: accuracy: {score}, zero-shot {score}>"
    assert Reader(objects["result"]._repr_html_()).cells[4:7] == ["accuracy", score, score]


def test_nothing_that_a_name_holds_is_markup():
    found = Reader(html_table("<script>", [("a & b", "<b>bold</b>", '"quoted"')], ["", "<i>"]))
    assert found.cells == ["<script>", "", "<i>", "a & b", "<b>bold</b>", '"quoted"']
    assert "script" not in found.names
