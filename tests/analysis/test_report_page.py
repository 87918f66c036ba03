"""The page as text: everything escaped, nothing fetched, small, the same every time."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from report_example import HOSTILE, TASKS, example

from analysis.prediction import predict_transfer
from analysis.report import Picture, ReportData, View, render_report
from analysis.report.matrix import cell_text, colour_range
from analysis.report.sections import picture
from analysis.report.tables import all_rows, folded, stacked
from tasks.errors import UserError

VOID = {"meta", "link", "img", "input", "br", "line", "circle"}


class Outline(HTMLParser):
    """The elements of a page, and whether every one is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.titles, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        if self.open and self.open[-1] == "title":
            self.titles.append(text)


@pytest.fixture(scope="module")
def page():
    return render_report(example())


@pytest.fixture(scope="module")
def outline(page):
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_a_hostile_name_stays_text(page, outline):
    assert HOSTILE not in page
    assert outline.titles == [f"Transfer {HOSTILE}"]
    assert len(outline.scripts) == 2  # the data and the script, none from a name
    assert "<b>x&y</b>" not in page


def test_nothing_is_fetched_and_only_the_one_script_may_run(page, outline):
    links = [value for name, value in outline.attributes if name in {"src", "href"}]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    digest = base64.b64encode(hashlib.sha256(outline.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page


def test_the_data_of_the_script_are_the_values(outline):
    data = json.loads(outline.scripts[0])
    assert [c["name"] for c in data["columns"]] == TASKS
    assert data["rows"][-1] == {"name": "no prompt", "type": "", "colour": "#767676", "reference": True}
    assert data["views"][0]["values"][0][3] is None
    assert data["views"][1]["values"][1][1] == pytest.approx(example().views[1].table.iloc[1, 1], abs=1e-6)


def test_without_a_script_the_table_is_there(page):
    static = re.search(r'<table id="matrix">.*?</table>', page, re.S).group()
    assert static.count("<tr") == 8 and static.count("<td") == 1 + 42
    assert '<td class="none">–</td>' in static


def test_the_summary_tells_types_apart(page):
    for name in ("own prompt", "same type", "different type", "no prompt"):
        assert f"<dt>{name}</dt>" in page


def test_the_same_data_give_the_same_page(page):
    assert render_report(example()) == page


def test_a_matrix_of_50_by_50_is_well_under_5_megabytes():
    labels = [f"task-{i}" for i in range(50)]
    table = pd.DataFrame(np.random.default_rng(0).random((50, 50)), index=labels, columns=labels)
    text = render_report(ReportData("large", tuple(View(n, table) for n in ("raw", "relative", "step 0"))))
    assert len(text) < 1_000_000


def test_views_with_other_labels_are_refused():
    table = pd.DataFrame([[1.0]], index=["a"], columns=["a"])
    with pytest.raises(UserError, match="labels of 'two' differ from those of 'one'"):
        ReportData("t", (View("one", table), View("two", table.rename(index={"a": "b"}))))


def test_a_report_without_a_view_is_refused():
    with pytest.raises(UserError, match="at least one view"):
        replace(example(), views=())


def test_a_picture_of_another_kind_is_refused():
    with pytest.raises(UserError, match="png or svg"):
        Picture("a", "b", b"", kind="html")


def test_cells_are_written_as_people_read_them():
    assert [cell_text(0.874, True, 1.0), cell_text(0.874, False, 0.9), cell_text(87.4, False, 100.0)] == [
        "87",
        ".87",
        "87",
    ]
    assert cell_text(0.00123, False, 0.002) == "1.2e-03"
    assert colour_range(pd.DataFrame([[0.1, 0.9]])) == [0.0, 0.9]
    assert colour_range(pd.DataFrame([[0.5, 0.9]])) == [0.5, 0.9]


# What the page says follows from its numbers --------------------------------------------------------------------


def said(data):
    """The text of the summary, without marks."""
    text = re.search(r'<section id="summary">.*?</section>', render_report(data), re.S).group()
    return re.sub(r"<[^>]+>", "", text)


def predicted(transfer, indicator, **settings):
    tasks = TASKS[:5]
    view = View("raw", pd.DataFrame(transfer, index=tasks, columns=tasks))
    tables = {"E_concat": pd.DataFrame(indicator, index=tasks, columns=tasks)}
    return ReportData("t", (view,), predictions=predict_transfer(view.table, tables, **settings))


def test_an_indicator_with_a_negative_mean_is_not_praised():
    transfer = np.random.default_rng(0).random((5, 5))
    text = said(predicted(transfer, -transfer, seeds=3))
    assert (
        "No indicator predicts transfer here: E_concat, the only indicator, has mean Spearman -1.00" in text
    )
    assert "ranks sources best" not in text


def test_an_indicator_that_is_not_above_chance_is_not_said_to_predict():
    rng = np.random.default_rng(3)
    transfer = rng.random((5, 5))
    data = predicted(transfer, transfer + 2.0 * rng.random((5, 5)), seeds=3)
    assert data.predictions[0].mean > 0 and data.predictions[0].test_holm.p_value > 0.05
    assert "No indicator is shown to predict transfer here" in said(data)


def test_one_seed_shows_nothing_and_several_may():
    transfer = np.random.default_rng(0).random((5, 5))
    one, three = (said(predicted(transfer, transfer, seeds=n)) for n in (1, 3))
    assert "Whether an indicator predicts transfer is not shown here (one seed)" in one
    assert "E_concat predicts transfer better than chance does" in three and "corrected" in three


def against_no_prompt(cells, types):
    names = list("abc")
    table = pd.DataFrame(cells, index=[*names, "no prompt"], columns=names)
    return said(ReportData("t", (View("raw", table),), types=types)).removeprefix("In short")


def test_transfer_below_no_prompt_is_the_headline():
    types = {"a": "x", "b": "x", "c": "y"}
    below = [[0.9, 0.3, 0.2], [0.2, 0.9, 0.2], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]]
    text = against_no_prompt(below, types)
    assert text.startswith(
        "Transfer does not help here: prompts of other tasks score below no prompt at all."
    )
    above = [[0.9, 0.7, 0.2], [0.7, 0.9, 0.2], [0.1, 0.1, 0.9], [0.5, 0.5, 0.5]]
    assert against_no_prompt(above, types).startswith(
        "Against no prompt, prompts of tasks of the same type are worth +0.200, of another type -0.367."
    )
    assert "gainst no prompt" not in against_no_prompt([*above[:2], [0.6, 0.6, 0.9], [0.5, 0.5, 0.1]], types)


def test_no_prompt_is_compared_target_by_target():
    # c has no source of its type and is hard: same type gains 0.1 on a and b, though no prompt is at 0.4 on the mean.
    cells = [[0.9, 0.4, 0.7], [0.4, 0.9, 0.7], [0.4, 0.4, 0.9], [0.3, 0.3, 0.6]]
    assert "gainst no prompt" not in against_no_prompt(cells, {"a": "x", "b": "x", "c": "y"})


def test_scores_of_different_metrics_are_not_averaged_together():
    tasks = ["a", "b"]
    table = pd.DataFrame([[0.9, 0.1], [0.5, 0.3]], index=tasks, columns=tasks)
    data = ReportData("t", (View("raw", table),), metrics={"a": "accuracy", "b": "token-f1"})
    text = said(data)
    assert "accuracy, own prompt0.9" in text and "token-f1, own prompt0.3" in text
    assert "own prompt0.6" not in text and "not averaged together" in text


def test_commands_go_on_in_the_next_line_instead_of_out_of_sight(page):
    assert page.count("<pre") == 1 and '<pre tabindex="0"><code>prompttransfer ' in page
    assert "white-space: pre-wrap" in page and "overflow-x: auto; max-width: 100%" in page


def test_only_pictures_of_several_panels_scroll_on_a_phone():
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="%dpt" height="90pt"/>'
    for width, frame in ((300, False), (900, True)):
        assert ('class="scroll wide"' in picture(Picture("t", "c", svg % width))) == frame


def test_a_long_table_is_closed_until_the_reader_opens_it():
    assert folded("Scores", "<table></table>", rows=3) == "<h3>Scores</h3><table></table>"
    assert folded("Scores", "<table></table>", rows=99).startswith("<details><summary>Scores</summary>")


def test_only_sentences_are_laid_out_as_sentences():
    html = stacked(["a", "p", "what to know"], [["x", "0.1", "one seed"], ["y", "", ""]])
    assert (
        '<td data-name="what to know" class=note>one seed</td>' in html
        and '<td data-name="p">0.1</td>' in html
    )


def test_what_all_rows_say_is_said_once():
    said, headings, rows = all_rows(["method", "model", "mean"], [["a", "tiny", "0.5"], ["b", "tiny", "0.5"]])
    assert said == "<p>All rows: model tiny.</p>" and headings == [
        "method",
        "mean",
    ]  # a number stays a column
    assert rows == [["a", "0.5"], ["b", "0.5"]]
