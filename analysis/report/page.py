"""The page: sections in order, one style, one script known by its hash."""

from __future__ import annotations

from html import escape

from analysis.report import sections
from analysis.report.data import ReportData
from analysis.report.matrix import left_out, matrix_json, matrix_table
from analysis.report.script import SCRIPT
from analysis.report.shell import html_page
from analysis.report.tables import HINT, command_lines


def render_report(data: ReportData) -> str:
    """The whole page as HTML text; the same data give the same text."""
    parts = _sections(data)
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in parts)
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{content}</section>' for key, name, content in parts
    )
    held = f'<script type="application/json" id="data">{matrix_json(data)}</script>\n'
    return html_page(data.title, links, body, data=held, script=SCRIPT)


def _sections(data: ReportData) -> list[tuple[str, str, str]]:
    """(anchor, heading, content) of every section that has something in it."""
    found = [("summary", "In short", sections.summary(data)), ("transfer", "Transfer matrix", _matrix(data))]
    if data.predictions:
        found.append(("indicators", "Does an indicator predict it?", sections.indicators(data.predictions)))
    if data.pictures:
        found.append(("pictures", "Maps and curves", "".join(map(sections.picture, data.pictures))))
    if data.cross_model is not None:
        content = sections.cross_model(data.cross_model, data.cross_model_controls)
        found.append(("models", "Across models", content))
    if data.taught:
        found.append(("teachers", "From a teacher", "".join(map(sections.taught, data.taught))))
    if data.facts:
        found.append(("run", "What was run", sections.pairs(data.facts)))
    if data.notes:
        found.append(
            ("notes", "To know", "<ul>" + "".join(f"<li>{escape(n)}</li>" for n in data.notes) + "</ul>")
        )
    if data.environment:
        found.append(("environment", "Environment", sections.pairs(data.environment)))
    if data.commands:
        found.append(("again", "Run it again", command_lines(data.commands)))
    return found


def _matrix(data: ReportData) -> str:
    """Controls (shown once the script runs), the table, and the line that says what a cell is."""
    return f"""<p>Rows are source prompts, columns target tasks. <span class="needs-script">Point at a cell, or move with the arrow keys, for all its
numbers; a column's name sorts the sources by it, a row's name the targets.</span> {left_out(data)}</p>
<div id="controls" class="needs-script" hidden>
<label>Show <select id="view"></select></label>
<label>Order <select id="order"><option value="type">by type</option><option value="name">by name</option><option value="mean">by mean</option></select></label>
<label>Find <input id="find" type="search" placeholder="part of a name"></label>
<fieldset id="types"><legend>Types</legend></fieldset>
<button id="reset" type="button">Reset</button>
</div>
{HINT}<div class="scroll" id="frame">{matrix_table(data)}</div>
<p id="detail" role="status" aria-live="polite" class="needs-script" hidden></p>
<div id="tip" aria-hidden="true" hidden></div>"""
