"""Printing for the benchmark: at once, and as tables that can be pasted into a page."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that can be pasted into a page."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        say("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)
