"""The page in a real browser: it renders, hover and keys explain, sort and filter work, the console stays silent."""

import json
import os
import shutil
import subprocess
import time

import pytest
from report_example import example

from analysis.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

FIRST_COLUMN = "[...document.querySelectorAll('#matrix tbody tr:not(.reference) td:nth-child(2)')].map(c => +c.textContent)"
ROWS = "[...document.querySelectorAll('#matrix tbody th button')].map(b => b.textContent)"
COMPLAINTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1200,900"]


class Browser:
    """One page of a headless Chromium, driven through its debugging protocol over a pair of pipes."""

    def __init__(self, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        # the browser reads its file 3 and writes its file 4, so the shell puts our ends there
        line = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        command = [CHROMIUM, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", line, "browser", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.session, self.left, self.complaints = 0, None, b"", []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.write)
        os.close(self.read)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("method") in COMPLAINTS:
                self.complaints.append(answer["params"])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def receive(self):
        """The next message: they end with a zero byte."""
        while b"\0" not in self.left:
            more = os.read(self.read, 1 << 16)
            assert more, "the browser went away"
            self.left += more
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        self.call("Emulation.clearDeviceMetricsOverride")
        self.complaints.clear()
        self.call("Page.navigate", url=url)
        ready = "document.readyState === 'complete' && !!document.querySelector('td[data-row]')"
        for _ in range(200):
            if self.value(ready):
                break
            time.sleep(0.05)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def settle(self):
        """Wait until what was done is drawn: scroll and pointer events come with the next frame."""
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.call("Runtime.evaluate", expression=frames, awaitPromise=True)

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)
        self.settle()

    def point(self, selector, kinds=("mouseMoved",)):
        self.value(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        self.settle()
        box = self.value(
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in kinds:
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left" if len(kinds) > 1 else "none", clickCount=1)  # fmt: skip
        self.settle()

    def click(self, selector):
        self.point(selector, ("mouseMoved", "mousePressed", "mouseReleased"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium, tmp_path):
    """The page, opened afresh; whatever the browser complained about is a failure."""
    (tmp_path / "report.html").write_text(render_report(example()), encoding="utf-8")
    chromium.open((tmp_path / "report.html").as_uri())
    yield chromium
    chromium.settle()
    assert chromium.complaints == []


def test_the_page_renders_and_the_console_stays_silent(browser):
    assert browser.value("document.querySelectorAll('td[data-row]').length") == 42
    assert browser.value("document.title") != "broken"
    assert not browser.value("document.getElementById('controls').hidden")


def test_hover_tells_every_number_of_a_cell(browser):
    browser.point('td[data-row="1"][data-column="0"]'.replace('"', "\\'"))
    tip = browser.value(
        "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
    )
    assert "imdb (sentiment) → sst2 (sentiment)" in tip
    for word in ("relative:", "raw:", "step 0:", "seeds: 3"):
        assert word in tip
    browser.point('td[data-row="0"][data-column="3"]'.replace('"', "\\'"))
    assert "cannot be </script>" in browser.value("document.getElementById('detail').textContent")


def test_a_columns_name_sorts_the_sources_and_again_undoes_it(browser):
    before = browser.value(ROWS)
    browser.click("[data-column-button=\\'0\\']")
    values = browser.value(FIRST_COLUMN)
    assert values == sorted(values, reverse=True) and len(values) == 6
    assert (browser.value(ROWS))[-1] == "no prompt"
    assert browser.value("document.querySelector('thead th').getAttribute('aria-sort')") == "descending"
    browser.click("[data-column-button=\\'0\\']")
    assert browser.value(ROWS) == before


def test_types_and_names_filter_and_reset_brings_all_back(browser):
    browser.click("#types input")
    assert browser.value("document.querySelectorAll('td[data-row]').length") == 5 * 4
    browser.value(
        "(() => { const f = document.getElementById('find'); f.value = 'li'; f.dispatchEvent(new Event('input')); })()"
    )
    assert browser.value(ROWS) == ["mnli", "snli", "no prompt"]
    browser.value(
        "(() => { const f = document.getElementById('find'); f.value = 'zzz'; f.dispatchEvent(new Event('input')); })()"
    )
    assert "Nothing is left" in browser.value("document.getElementById('detail').textContent")
    browser.click("#reset")
    assert browser.value("document.querySelectorAll('td[data-row]').length") == 42


def test_another_view_changes_the_cells(browser):
    before = browser.value(FIRST_COLUMN)
    browser.value(
        "(() => { const v = document.getElementById('view'); v.value = '1'; v.dispatchEvent(new Event('change')); })()"
    )
    after = browser.value(FIRST_COLUMN)
    assert after == [pytest.approx(b / 100 * 0.9, abs=0.011) for b in before]


def test_arrow_keys_walk_the_cells_and_one_cell_is_in_the_tab_order(browser):
    browser.value("document.querySelector('td[data-row]').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"):
        browser.press(key)
    assert (
        browser.value("[document.activeElement.dataset.row, document.activeElement.dataset.column].join()")
        == "0,2"
    )
    assert "sst2 (sentiment) → mnli (nli)" in browser.value("document.getElementById('detail').textContent")
    assert browser.value("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1


def test_on_a_phone_only_the_table_scrolls_sideways(browser):
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True
    )
    assert browser.value("document.documentElement.scrollWidth <= 360")


def test_it_prints_without_the_controls_and_with_the_whole_table(browser):
    browser.call("Emulation.setEmulatedMedia", media="print")
    for name in ("controls", "detail"):
        assert browser.value(f"getComputedStyle(document.getElementById('{name}')).display") == "none"
    assert browser.value("getComputedStyle(document.getElementById('frame')).overflowX") == "visible"
    assert browser.value("getComputedStyle(document.querySelector('pre')).whiteSpace") == "pre-wrap"
    browser.call("Emulation.setEmulatedMedia", media="")


def test_the_whole_page_is_reached_by_the_tab_key(browser):
    reached = set()
    for _ in range(40):
        browser.press("Tab")
        reached.add(
            browser.value("document.activeElement.closest('nav, #controls, thead, tbody, pre')?.tagName")
        )
    assert {"NAV", "DIV", "THEAD", "TBODY", "PRE"} <= reached
