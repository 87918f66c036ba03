"""What reaches the terminal: the one place that cleans text for it and that knows what it can show.

Names and texts come from other people's files. A control sequence in them could move the cursor, change colours or
hide what was said, so every control character becomes `�` before it is printed, and letters that the output's encoding
lacks become `?`. JSON keeps every value: there such characters are escaped.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

SHOWN_FOR_CONTROL = "\N{REPLACEMENT CHARACTER}"
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # what turns the direction of writing or ends a line
    "\ud800-\udfff]"  # bytes of a file name that are no text
)


def clean(text: str) -> str:
    """`text` with every character that steers a terminal, or that is none, replaced by one that shows."""
    return _CONTROL.sub(SHOWN_FOR_CONTROL, text)


def clean_line(text: str) -> str:
    """`text` on one line, cleaned."""
    return clean(" ".join(text.split()))


class CleanConsole(Console):
    """A rich console that prints its own styles and moves, and no control character of what it is given."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; those that rich itself makes to steer the terminal are kept."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else clean(text), style, control)


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON of `value`, exact on every output: what it cannot show, or would be steered by, is escaped."""
    plain = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps(value, indent=indent, ensure_ascii=plain, allow_nan=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say_line(text: str) -> None:
    """One cleaned line on standard output, not folded."""
    print(clean(text))


def replace_unknown_letters() -> None:
    """From here on a letter that standard output or standard error cannot encode is printed as `?`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
