"""One self-contained HTML page that a researcher can hand to a colleague.

`ReportData` says what may stand in it, `render_report` makes the text. Nothing is fetched: style, script, data and
pictures are in the page, and its content policy forbids anything else. Everything that comes from data or names is
escaped; the script that runs is known by its hash, so no text can become another.
"""

from analysis.report.data import Picture, ReportData, Taught, View
from analysis.report.page import render_report

__all__ = ["Picture", "ReportData", "Taught", "View", "render_report"]
