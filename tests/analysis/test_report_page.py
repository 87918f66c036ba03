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

from analysis.report import Picture, ReportData, View, render_report
from analysis.report.matrix import cell_text, colour_range
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
