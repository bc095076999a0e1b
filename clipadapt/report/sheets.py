"""Tables of text, rendered for the terminal, Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.table import Table
from rich.text import Text

LATEX = {
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "±": r"$\pm$",
    "*": r"$^*$",
}
"""Escapes of characters that LaTeX treats specially; a bracket after `\\\\` would be read as an optional argument."""


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        title: the title.
        head: the heading of each column.
        groups: groups of lines; a line has the text of each column.
        words: the number of leading columns that hold words; a star at the end of the last of them marks a line.
        notes: notes below the table.
    """

    title: str
    head: list[str]
    groups: list[list[list[str]]]
    words: int
    notes: Sequence[str] = ()


def transpose(sheet: Sheet) -> Sheet:
    """Return a table with its lines as columns."""
    (lines,) = sheet.groups
    head, *found = ([sheet.head[place], *(line[place] for line in lines)] for place in range(len(sheet.head)))
    return replace(sheet, head=head, groups=[found], words=1)


def rich_table(sheet: Sheet) -> Table:
    """Return a table for the terminal, without its notes."""
    table = Table(title=Text(sheet.title, "bold"), title_justify="left")
    for number, head in enumerate(sheet.head):
        words = number < sheet.words
        table.add_column(head, justify="left" if words else "right", no_wrap=words)
    for lines in sheet.groups:
        for line in lines:
            table.add_row(*map(Text, line), style="italic" if line[sheet.words - 1].endswith("*") else "")
        table.add_section()
    return table


def markdown_table(sheet: Sheet) -> str:
    """Return a table as Markdown, with its notes."""
    rule = ["---" if number < sheet.words else "---:" for number in range(len(sheet.head))]
    lines = [sheet.head, rule, *(line for lines in sheet.groups for line in lines)]
    return "\n\n".join([f"## {sheet.title}", "\n".join(map(_line, lines)), *map(_escaped, sheet.notes)])


def latex_table(sheet: Sheet) -> str:
    """Return a table as LaTeX for the package booktabs, with its title and notes."""
    columns = "".join("l" if number < sheet.words else "r" for number in range(len(sheet.head)))
    groups = ["\n".join(f"{' & '.join(map(_latex, line))} \\\\" for line in lines) for lines in sheet.groups]
    notes = [f"% {note}" for note in sheet.notes]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(sheet.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{' & '.join(map(_latex, sheet.head))} \\",
            r"\midrule",
            "\n\\midrule\n".join(groups),
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
        ]
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")
