"""The page in a real browser: it renders, hover and keys explain, sort and filter work, the console stays silent."""

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request

import pytest
from report_example import example

from analysis.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
aiohttp = pytest.importorskip("aiohttp", reason="the browser is spoken to through aiohttp")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

FIRST_COLUMN = "[...document.querySelectorAll('#matrix tbody tr:not(.reference) td:nth-child(2)')].map(c => +c.textContent)"
ROWS = "[...document.querySelectorAll('#matrix tbody th button')].map(b => b.textContent)"


class Browser:
    """One page of a headless Chromium, driven through its debugging protocol."""

    def __init__(self, socket):
        self.socket, self.number, self.complaints = socket, 0, []

    async def call(self, method, **parameters):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": parameters})
        while True:
            answer = json.loads((await self.socket.receive(timeout=30)).data)
            if answer.get("method") in {
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
            }:
                self.complaints.append(answer["params"])
            if answer.get("id") == self.number:
                return answer["result"]

    async def value(self, expression):
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def settle(self):
        """Wait until what was done is drawn: scroll and pointer events come with the next frame."""
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        await self.call("Runtime.evaluate", expression=frames, awaitPromise=True)

    async def press(self, key):
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)
        await self.settle()

    async def point(self, selector, kinds=("mouseMoved",)):
        await self.value(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        await self.settle()
        box = await self.value(
            f"(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in kinds:
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left" if len(kinds) > 1 else "none", clickCount=1)  # fmt: skip
        await self.settle()

    async def click(self, selector):
        await self.point(selector, ("mouseMoved", "mousePressed", "mouseReleased"))


async def look(port, url, script):
    """Open `url`, run the coroutine `script(browser)`, and return what the browser complained about."""
    for _ in range(100):
        try:
            pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
            break
        except OSError:
            await asyncio.sleep(0.1)
    address = next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        browser = Browser(socket)
        for domain in ("Runtime", "Log", "Page"):
            await browser.call(f"{domain}.enable")
        await browser.call("Page.navigate", url=url)
        for _ in range(100):
            if await browser.value(
                "document.readyState === 'complete' && !!document.querySelector('td[data-row]')"
            ):
                break
            await asyncio.sleep(0.1)
        await script(browser)
        return browser.complaints


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(render_report(example()), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1200,900"]
    command = [
        CHROMIUM,
        *options,
        "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}",
        "about:blank",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    marker, end = folder / "profile" / "DevToolsActivePort", time.monotonic() + 60
    while not (marker.exists() and marker.read_text().strip()) and time.monotonic() < end:
        time.sleep(0.1)
    port = int(marker.read_text().split()[0])
    yield lambda script: asyncio.run(look(port, (folder / "report.html").as_uri(), script))
    process.terminate()
    process.wait(timeout=20)


def test_the_page_renders_and_the_console_stays_silent(opened):
    async def script(browser):
        assert await browser.value("document.querySelectorAll('td[data-row]').length") == 42
        assert await browser.value("document.title") != "broken"
        assert not await browser.value("document.getElementById('controls').hidden")

    assert opened(script) == []


def test_hover_tells_every_number_of_a_cell(opened):
    async def script(browser):
        await browser.point('td[data-row="1"][data-column="0"]'.replace('"', "\\'"))
        tip = await browser.value(
            "document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent"
        )
        assert "imdb (sentiment) → sst2 (sentiment)" in tip
        for word in ("relative:", "raw:", "step 0:", "seeds: 3"):
            assert word in tip
        await browser.point('td[data-row="0"][data-column="3"]'.replace('"', "\\'"))
        assert "cannot be </script>" in await browser.value("document.getElementById('detail').textContent")

    assert opened(script) == []


def test_a_columns_name_sorts_the_sources_and_again_undoes_it(opened):
    async def script(browser):
        before = await browser.value(ROWS)
        await browser.click("[data-column-button=\\'0\\']")
        values = await browser.value(FIRST_COLUMN)
        assert values == sorted(values, reverse=True) and len(values) == 6
        assert (await browser.value(ROWS))[-1] == "no prompt"
        assert (
            await browser.value("document.querySelector('thead th').getAttribute('aria-sort')")
            == "descending"
        )
        await browser.click("[data-column-button=\\'0\\']")
        assert await browser.value(ROWS) == before

    assert opened(script) == []


def test_types_and_names_filter_and_reset_brings_all_back(opened):
    async def script(browser):
        await browser.click("#types input")
        assert await browser.value("document.querySelectorAll('td[data-row]').length") == 5 * 4
        await browser.value(
            "(() => { const f = document.getElementById('find'); f.value = 'li'; f.dispatchEvent(new Event('input')); })()"
        )
        assert await browser.value(ROWS) == ["mnli", "snli", "no prompt"]
        await browser.value(
            "(() => { const f = document.getElementById('find'); f.value = 'zzz'; f.dispatchEvent(new Event('input')); })()"
        )
        assert "Nothing is left" in await browser.value("document.getElementById('detail').textContent")
        await browser.click("#reset")
        assert await browser.value("document.querySelectorAll('td[data-row]').length") == 42

    assert opened(script) == []


def test_another_view_changes_the_cells(opened):
    async def script(browser):
        before = await browser.value(FIRST_COLUMN)
        await browser.value(
            "(() => { const v = document.getElementById('view'); v.value = '1'; v.dispatchEvent(new Event('change')); })()"
        )
        after = await browser.value(FIRST_COLUMN)
        assert after == [pytest.approx(b / 100 * 0.9, abs=0.011) for b in before]

    assert opened(script) == []


def test_arrow_keys_walk_the_cells_and_one_cell_is_in_the_tab_order(opened):
    async def script(browser):
        await browser.value("document.querySelector('td[data-row]').focus()")
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"):
            await browser.press(key)
        assert (
            await browser.value(
                "[document.activeElement.dataset.row, document.activeElement.dataset.column].join()"
            )
            == "0,2"
        )
        assert "sst2 (sentiment) → mnli (nli)" in await browser.value(
            "document.getElementById('detail').textContent"
        )
        assert await browser.value("document.querySelectorAll('td[tabindex=\"0\"]').length") == 1

    assert opened(script) == []


def test_on_a_phone_only_the_table_scrolls_sideways(opened):
    async def script(browser):
        await browser.call(
            "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True
        )
        assert await browser.value("document.documentElement.scrollWidth <= 360")

    assert opened(script) == []
