"""bench.html: every tier measured, or why it is not there; Cancel, the report, the keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bascule.observe.tier_report import TierReport
from e2e.axe import PHONE, defects, defects_now, emulate
from e2e.conftest import Site
from e2e.engines import Engine, Page, PlaywrightTab, wait_for

STATUS = "document.querySelector('#status')"
SAID = """() => ["#status", "#error-what", "#error-hint"]
  .map((part) => document.querySelector(part).textContent).join("")"""
DONE = f"['ready', 'error'].includes({STATUS}.dataset.state)"
ROWS = """() => Object.fromEntries([...document.querySelectorAll("#tiers tbody tr")].map((row) =>
  [row.cells[0].firstChild.textContent, [...row.cells].map((cell) => cell.textContent)]))"""
PRESS = "(name) => document.querySelector(name).click()"
# In Chromium and Firefox of these tests the adapter is software; Firefox does not name it.
TIERS = ["webgpu", "webgpu-limited", "webnn", "wasm", "cpu"]


@pytest.fixture(scope="module")
def page(engine: Engine, site: Site) -> Iterator[Page]:
    opened = engine.new_page()
    opened.open(f"{site.url}/bench.html?model=/goldens/tiny-bert")
    yield opened
    opened.close()


def start(page: Page) -> None:
    page.run("() => { document.querySelector('#sizes').value = 'quick'; }")
    page.run(PRESS, "#measure")


@pytest.mark.webgpu_engines
def test_a_run_that_is_cancelled_and_one_to_its_end(page: Page, site: Site) -> None:
    start(page)
    wait_for(page, f"/memory|embedding|opening/.test({STATUS}.textContent)")
    page.run(PRESS, "#cancel")
    wait_for(page, DONE)
    assert page.run(SAID) == "Cancelled."
    assert page.run("() => document.querySelector('#report-card').hidden")
    start(page)
    wait_for(page, DONE)
    assert page.run(SAID) == "Measured."
    report = TierReport.from_json(page.run("() => document.querySelector('#report').value"))
    assert [each.tier for each in report.tiers] == TIERS
    assert report.environment["browser"].value == page.run("() => navigator.userAgent")
    assert report.environment["pyodide"].value == "0.27.7"
    rows = page.run(ROWS)
    assert list(rows) == TIERS
    for each in report.tiers:
        if each.refused:
            assert rows[each.tier][1:] == [each.refused]
            continue
        assert {name: fact.source for name, fact in each.figures.items()} == dict.fromkeys(
            each.figures, "measured"
        )
        deviation = each.figures["deviation"].number
        assert deviation is not None
        assert deviation <= 1e-5
        assert len(rows[each.tier]) == 5
    works = {each.tier for each in report.tiers if not each.refused}
    has_gpu = page.run("async () => Boolean(await navigator.gpu?.requestAdapter())")
    assert works == {"wasm", "cpu", *(("webgpu", "webgpu-limited") if has_gpu else ())}
    if not has_gpu:
        assert "navigator.gpu" in rows["webgpu"][1]
    if isinstance(page, PlaywrightTab):
        result = defects(page, site.extra, ("phone", "desktop", "dark"))
        emulate(page, size=PHONE, color_scheme="dark")
        assert [*result, *defects_now(page, site.extra)] == []
    else:
        assert defects_now(page, site.extra) == []


@pytest.mark.one_engine
def test_software_is_named_and_the_keyboard_is_enough(page: Page) -> None:
    assert "software adapter" in page.run(ROWS)["webgpu"][0]
    assert isinstance(page, PlaywrightTab)
    page.page.focus("#download")
    with page.page.expect_download() as saved:
        page.press("Enter")
    text = saved.value.path().read_text()
    assert text == page.run("() => document.querySelector('#report').value")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.page.focus("#copy")
    page.press("Enter")
    wait_for(page, "document.querySelector('#copied').textContent === 'Copied.'")
    assert page.run("() => navigator.clipboard.readText()") == text
    page.page.focus("#measure")
    page.press("Enter")
    wait_for(page, f"{STATUS}.dataset.state === 'busy'")
    assert page.run("() => document.activeElement.id") == "cancel"
    page.press("Enter")
    wait_for(page, DONE)
    assert page.run("() => document.activeElement.id") == "measure"
