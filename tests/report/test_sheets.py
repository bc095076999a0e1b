"""Tables as text, with names that mean something to what reads them."""

import shutil
import string
import subprocess

import pytest

from clipadapt.report.sheets import Sheet, latex_table

SYMBOLS = [*string.punctuation, "naïve Größe ± ñ"]


def has_latex():
    found = shutil.which("pdflatex") and shutil.which("kpsewhich")
    return found and subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True).returncode == 0


def latex_of(name):
    text = latex_table(Sheet("Accuracy", ["method", "x"], [[[name, "1"]]], 1))
    return next(line for line in text.splitlines() if line.endswith(r"& 1 \\")).removesuffix(r" & 1 \\")


@pytest.mark.parametrize(
    "name, written",
    [
        ("a^b~c", r"a\textasciicircum{}b\textasciitilde{}c"),
        (r"a\b{c}", r"a\textbackslash{}b\{c\}"),
        ("50 % & $5 #1 _x_", r"50 \% \& \$5 \#1 \_x\_"),
        ("a < b > c | d", r"a \textless{} b \textgreater{} c \textbar{} d"),
        ("[1] * ±", r"{[}1] $^*$ $\pm$"),
        ("naïve Größe", "naïve Größe"),
    ],
)
def test_latex_takes_names_literally(name, written):
    assert latex_of(name) == written


@pytest.mark.skipif(not has_latex(), reason="needs pdflatex and booktabs")
def test_latex_compiles(tmp_path):
    sheet = Sheet("".join(SYMBOLS), SYMBOLS, [[[name] * len(SYMBOLS) for name in SYMBOLS]], 1, SYMBOLS)
    text = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{latex_table(sheet)}\end{{document}}"
    (tmp_path / "table.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0 and "Missing character" not in done.stdout, done.stdout[-2000:]
