"""Tables of a page that a phone can show: on a narrow screen each row becomes a list of what it says, name beside value.

Wide tables scroll instead, with a line above them that says so where the screen is narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

HINT = '<p class="hint">This table is wider than a narrow screen: push it sideways.</p>'

FEW_COLUMNS = 4
"""What a phone shows without scrolling, the names of rows among them."""


def stacked(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the row; cells without text are left out of a stacked row."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td data-name="{escape(name)}"{"" if cell else " class=empty"}>{escape(cell)}</td>'
            for name, cell in zip(headings[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        '<div class="scroll" tabindex="0"><table class="plain stack">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def scrolled(table: str) -> str:
    """A table, HTML, in a frame that scrolls; below a hint that only narrow screens show where it has many columns."""
    columns = table.count("<th", 0, table.find("</thead>") + 1)
    hint = HINT if columns > FEW_COLUMNS else ""
    return f'{hint}<div class="scroll" tabindex="0">{table}</div>'
