"""The HTML reports, of real runs, in each engine: what they show, and how they look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import bascule
from bascule import HardwareCompatibilityReporter, PerformanceMonitor, WebGPUDebugger
from bascule.observe.compatibility import render
from e2e.axe import PHONE, defects, defects_now, emulate
from e2e.conftest import GOLDENS, Site
from e2e.engines import Engine, Page, PlaywrightTab
from tests.observe.planted import EDGE, planted

TEXTS = ["a cat", "a dog sleeps"]
HEADINGS = "() => [...document.querySelectorAll('h2')].map((heading) => heading.textContent)"
# For each kernel, whether the pointer on its first bar reads it.
POINTED = """() => {
  const timeline = document.querySelector("#timeline");
  const names = [...document.querySelectorAll("#kernels th")].map((cell) => cell.textContent);
  const box = timeline.getBoundingClientRect();
  const lane = box.height / names.length;
  return names.map((name, index) => {
    for (let x = 1; x < box.width; x++) {
      document.querySelector("#read").textContent = "\u00a0";
      const at = { clientX: box.left + x, clientY: box.top + (index + 0.7) * lane };
      timeline.dispatchEvent(new PointerEvent("pointermove", at));
      const read = document.querySelector("#read").textContent.trim();
      if (read) return read.startsWith(`${name}: `);
    }
    return false;
  });
}"""
# For each kernel, the colours in the upper and in the lower half of its lane of the timeline.
NAMES_AND_BARS = """() => {
  const timeline = document.querySelector("#timeline");
  const { width, height } = timeline;
  const bytes = timeline.getContext("2d").getImageData(0, 0, width, height).data;
  const lanes = document.querySelectorAll("#kernels tr").length;
  const colours = Array.from({ length: lanes }, () => [new Set(), new Set()]);
  for (let y = 0; y < height; y++) {
    const lane = Math.floor((y * lanes) / height);
    const lower = (y * lanes) / height - lane >= 0.5 ? 1 : 0;
    for (let x = 0; x < width; x++) {
      const at = 4 * (y * width + x);
      if (bytes[at + 3] > 128) colours[lane][lower].add(bytes.slice(at, at + 3).join());
    }
  }
  return colours.map((parts) => parts.map((found) => [...found]));
}"""


@pytest.fixture(scope="module")
def written(site: Site) -> Site:
    """The site with the reports of a pass natively, under /extra."""

    async def write() -> None:
        async with await bascule.load(GOLDENS / "tiny-bert", tier="webgpu") as model:
            assert isinstance(model, bascule.EmbeddingModel)
            async with PerformanceMonitor(model) as monitor:
                await model.embed(TEXTS)
            monitor.generate_performance_visualization(site.extra / "native-performance.html")
            debugger = WebGPUDebugger(model)
            with debugger.capture_shader_trace():
                await model.embed(TEXTS)
            analysis: Any = debugger.analyze_shader_performance()
            await analysis  # in a coroutine it is one
            debugger.export_debug_report(site.extra / "native-debug.html")

    async def write_wrong() -> None:
        async with await bascule.load(GOLDENS / "tiny-bert", tier="webgpu") as model:
            assert isinstance(model, bascule.EmbeddingModel)
            debugger = WebGPUDebugger(model)
            with debugger.capture_shader_trace():
                await model.embed(TEXTS)
            debugger.export_debug_report(site.extra / "native-wrong.html")

    async def detect(reporter: HardwareCompatibilityReporter) -> None:
        await reporter.collect_hardware_detection_errors()

    bascule.sync(write())
    with pytest.MonkeyPatch.context() as monkeypatch:
        planted(monkeypatch, "linear_any.wgsl", *EDGE)
        bascule.sync(write_wrong())
    reporter = HardwareCompatibilityReporter()
    reporter.check_components()
    bascule.sync(detect(reporter))
    page = render(reporter.as_json(matrix=True), "html")
    (site.extra / "native-compatibility.html").write_text(page, "utf-8")
    return site


@pytest.fixture(scope="module")
def page(engine: Engine) -> Iterator[Page]:
    opened = engine.new_page()
    yield opened
    opened.close()


def look(page: Page, site: Site) -> list[str]:
    """What is wrong with how the open page looks, in every way that this engine can show."""
    if not isinstance(page, PlaywrightTab):
        return defects_now(page, site.extra)
    result = defects(page, site.extra)
    emulate(page, size=PHONE, color_scheme="dark")
    return [*result, *defects_now(page, site.extra)]


def test_the_performance_report(page: Page, written: Site) -> None:
    page.open(f"{written.url}/extra/native-performance.html")
    headings = ["Summary", "Time by kernel", "Timeline", "Memory of the device"]
    assert page.run(HEADINGS) == [*headings, "Calls and compilations"]
    for upper, lower in page.run(NAMES_AND_BARS):
        assert upper  # a name is drawn
        assert lower
        assert not set(upper) & set(lower)  # and no bar over it
    assert page.run(POINTED) == [True] * page.run("() => names.length")
    assert look(page, written) == []


def test_the_debug_report(page: Page, written: Site) -> None:
    page.open(f"{written.url}/extra/native-debug.html")
    assert page.run(HEADINGS) == ["Result", "Dispatches", "Against the roofline", "Kernels"]
    page.run("() => document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert "fn main(" in page.run("() => document.querySelector('pre').textContent")
    assert look(page, written) == []


def test_the_debug_report_of_a_wrong_kernel(page: Page, written: Site) -> None:
    page.open(f"{written.url}/extra/native-wrong.html")
    assert page.run(HEADINGS) == ["Result", "Differences", "Dispatches", "Kernels"]
    cells = "[...document.querySelector('tbody tr').cells]"
    first = page.run(f"() => {cells}.map((cell) => cell.textContent)")
    dispatch, file, element, expected, got, count = first
    op = dispatch.split()[-1]
    assert (op, file) == ("linear", "linear_any.wgsl, main")
    assert element.endswith(" [0, 0, 104]")  # the last column of the queries, keys and values
    assert float(expected) != float(got)
    assert int(count.split(" of ")[0]) > 0
    assert "op linear by linear_any (linear_any.wgsl, entry point main)" in page.run(
        "() => document.querySelector('#summary').textContent"
    )
    # The wrong kernels are unfolded: without an activation and with one.
    opened = page.run(
        "() => [...document.querySelectorAll('details[open]')].map((e) => e.firstChild.textContent)"
    )
    summary = "linear_any (linear_any.wgsl), first in dispatch "
    assert opened == [summary + "2", summary + "6"]
    assert look(page, written) == []


def test_the_compatibility_report(page: Page, written: Site) -> None:
    page.open(f"{written.url}/extra/native-compatibility.html")
    assert page.run(HEADINGS)[-3:] == ["Hardware", "Tiers", "Families by tier"]
    text = page.run("() => document.querySelector('main').textContent")
    assert "e+0" not in text
    assert look(page, written) == []
