"""Small HTML tables, which a notebook shows of objects in place of their `repr`."""

from collections.abc import Sequence
from html import escape

LEFT = '"text-align: left"'


def html_table(title: str, rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table as HTML, with everything escaped.

    Args:
        title: stands above the table.
        rows: cells of each line; the first one names the line.
        head: names of the columns; none if empty.
    """
    lines = [_line(head, [])] if head else []
    lines += [_line(row[:1], row[1:]) for row in rows]
    return f"<table><caption style={LEFT}><b>{escape(title)}</b></caption>{''.join(lines)}</table>"


def _line(names: Sequence[str], cells: Sequence[str]) -> str:
    kinds = [*(("th", name) for name in names), *(("td", cell) for cell in cells)]
    return f"<tr>{''.join(f'<{kind} style={LEFT}>{escape(text)}</{kind}>' for kind, text in kinds)}</tr>"
