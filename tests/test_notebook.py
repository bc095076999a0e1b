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


CELLS = [
    "import clipadapt\nfrom rich.console import Console\nbackbone = clipadapt.load_backbone()\nbackbone",
    "task = clipadapt.load_task('digits', shots=1)\ntask",
    "result = clipadapt.finetune(backbone, task, 'coop', epochs=2, cpu=True, workers=0, cache=None)\nresult",
    "again = clipadapt.finetune(backbone, task, 'coop', epochs=2, cpu=True, workers=0, cache=None, console=Console())",
    "result.predictor",
    "result.predict(task.support.images[:2])",
]


@pytest.mark.slow
def test_a_notebook_runs_to_its_end(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs nbconvert, ipykernel and clipadapt[notebook]")
    executing = pytest.importorskip("nbconvert.preprocessors", reason="needs nbconvert, ipykernel, clipadapt[notebook]")
    pytest.importorskip("ipywidgets", reason="needs clipadapt[notebook]")
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    executing.ExecutePreprocessor(timeout=600).preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    nbformat.write(notebook, tmp_path / "done.ipynb")
    shown = [cell["outputs"] for cell in notebook["cells"]]
    assert not [one for outputs in shown for one in outputs if one.get("name") == "stderr"]
    for place in (0, 1, 2, 4):
        (one,) = shown[place]  # no bars of a quiet console beside the table
        assert one["data"]["text/html"].startswith("<table>")
    assert any("application/vnd.jupyter.widget-view+json" in one["data"] for one in shown[3])
    assert any("learned parameters" in one["data"].get("text/plain", "") for one in shown[3])
    assert len(eval(shown[5][0]["data"]["text/plain"])) == 2
