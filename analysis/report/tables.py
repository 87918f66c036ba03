"""Tables of a page that a phone can show: on a narrow screen each row becomes a list of what it says, name beside value.

Wide tables scroll instead, with a line above them that says so where the screen is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

HINT = '<p class="hint">Where columns are cut off, swipe the table sideways.</p>'
PICTURE_HINT = '<p class="hint">Swipe the picture sideways to see all of it.</p>'
NOTE = "what to know"
"""Heading of the column that holds sentences, where a table has one."""

FEW_COLUMNS = 4
"""What a phone shows without scrolling, the names of rows among them."""
MOST_ROWS = 12
"""What stands open on a page; longer lists and tables are opened by who wants them."""


def stacked(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the row; cells without text are left out of a stacked row."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td data-name="{escape(name)}"{_kind(name, cell)}>{escape(cell)}</td>'
            for name, cell in zip(headings[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0"><table class="plain stack">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def all_rows(
    headings: Sequence[str], rows: Sequence[Sequence[str]], counts: Sequence[str] = ()
) -> tuple[str, list[str], list[list[str]]]:
    """What several rows have in common as a sentence, and headings and rows without it: text, and numbers of `counts` alone."""
    same = [
        place
        for place, values in enumerate(zip(*rows, strict=True))
        if place
        and len(values) > 1
        and len(set(values)) == 1
        and values[0]
        and (headings[place] in counts or not _is_number(values[0]))
    ]
    said = ", ".join(f"{headings[place]} {rows[0][place]}" for place in same)
    kept = [place for place in range(len(headings)) if place not in same]
    cells = [[row[place] for place in kept] for row in rows]
    return (f"<p>All rows: {escape(said)}.</p>" if said else ""), [headings[place] for place in kept], cells


def _is_number(text: str) -> bool:
    return text.lstrip("+-\N{MINUS SIGN}< ")[:1].isdigit()


def _kind(heading: str, cell: str) -> str:
    """The class of a cell."""
    if not cell:
        return " class=empty"
    return " class=note" if heading == NOTE else ""


def folded(title: str, content: str, rows: int, most: int = MOST_ROWS) -> str:
    """Content under a title: as it is where it has few rows, otherwise closed until the reader opens it."""
    if rows <= most:
        return f"<h3>{escape(title)}</h3>{content}"
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def wide_picture(image: str) -> str:
    """An image, HTML, that a phone shows at a size that can be read, in a frame that scrolls."""
    return f'{PICTURE_HINT}<div class="scroll wide" tabindex="0">{image}</div>'


def command_lines(lines: Sequence[str]) -> str:
    """Commands for copying; a long one goes on in a hanging line."""
    return f'<pre tabindex="0">{"".join(f"<code>{escape(line)}</code>" for line in lines)}</pre>'


def scrolled(table: str) -> str:
    """A table, HTML, in a frame that scrolls; below a hint that only narrow screens show where it has many columns."""
    columns = table.count("<th", 0, table.find("</thead>") + 1)
    hint = HINT if columns > FEW_COLUMNS else ""
    return f'{hint}<div class="scroll" tabindex="0">{table}</div>'
