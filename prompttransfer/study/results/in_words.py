"""Values of a study as its pages write them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def listed(lines: Sequence[str]) -> str:
    """Lines as a list; nothing for none."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def span(low: object, high: object) -> str:
    """An interval, empty where there is none."""
    return f"{number(low)} to {number(high)}" if number(low) and number(high) else ""


def number(value: object, decimals: int = 3) -> str:
    """A number, empty where there is none; what is no fraction stays as it is."""
    if isinstance(value, float) and value == value:
        return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    return cell_text(value)


def p_value(value: object) -> str:
    """A p value: one that three decimals would show as nothing is said to be small, since no test can give zero."""
    small = isinstance(value, float) and 0 <= value < SMALLEST_SHOWN
    return f"< {SMALLEST_SHOWN}" if small else number(value)


SMALLEST_SHOWN = 0.001
"""The smallest p value that is written out."""


def cell_text(value: object) -> str:
    """A value for people."""
    import pandas as pd

    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
