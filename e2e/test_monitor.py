"""PerformanceMonitor and WebGPUDebugger in a page, and the reports as pages."""

from __future__ import annotations

import json

import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page, PlaywrightTab

SCRIPT = """
import json
import bascule
import js
import numpy as np

async def all_of_it():
    found = {}
    async with await bascule.open_device("webgpu") as device:
        model = await device.load(js.location.origin + "/goldens/tiny-bert")
        texts = ["a cat", "a dog sleeps"]
        await model.embed(texts)
        plain, before = await model.embed(texts), device.memory().now_nbytes
        async with bascule.PerformanceMonitor(device) as monitor:
            again = await model.embed(texts)
        report = monitor.report
        found["same"] = bool(np.array_equal(plain, again))
        found["timed by"] = report.timed_by
        ops = len(next(iter(model._prepared.values())).program.calls)
        found["work"] = [len(report.work), ops]
        found["names"] = sorted(k.name for k in report.kernels)
        found["in time"] = all(0 <= s.start_s <= report.seconds for s in report.work)
        found["busy"] = [report.busy_ms, 1e3 * report.seconds]
        found["bytes"] = [report.read_nbytes, plain.nbytes, report.written_nbytes]
        found["freed"] = [before, device.memory().now_nbytes]
        found["runs"] = [run.kind for run in report.runs]
        monitor.generate_performance_visualization("/tmp/performance.html")
        found["page"] = open("/tmp/performance.html").read()
        debugger = bascule.WebGPUDebugger(model)
        with debugger.capture_shader_trace():
            await model.embed(texts)
        found["trace"] = [str(debugger.trace), len(debugger.trace.calls), ops]
        performance = await debugger.analyze_shader_performance()
        found["timed"] = len(performance.dispatches)
        debugger.export_debug_report("/tmp/debug.html")
        found["debug page"] = open("/tmp/debug.html").read()
    async with await bascule.open_device("webgpu-limited") as device:
        double = bascule.elementwise("x: f32 -> y: f32", "y = 2 * x", device=device)
        async with bascule.PerformanceMonitor(device) as monitor:
            for _ in range(3):
                await (await double(np.ones(8, np.float32))).numpy()
        found["limited"] = [monitor.report.timed_by, len(monitor.report.work)]
        found["compiled"] = len(monitor.report.compiled)
    return found

json.dumps(await all_of_it())
"""


@pytest.mark.one_engine
def test_a_report_of_the_browsers_timestamps(
    webgpu_engine: Engine, site: Site, shared_lab: Page
) -> None:
    result = json.loads(shared_lab.run("(code) => lab.run(code)", SCRIPT))
    html, debug_html = result.pop("page"), result.pop("debug page")
    print(result)
    assert result["same"]
    assert result["timed by"] == "timestamps"
    assert result["work"][0] == result["work"][1]
    assert all(result["names"])
    assert result["in time"]
    assert result["busy"][0] <= result["busy"][1]
    assert result["bytes"][0] == result["bytes"][1]
    assert result["bytes"][2] > 0
    assert result["freed"][0] == result["freed"][1]
    assert result["runs"] == ["embed"]
    summary, n_calls, ops = result["trace"]
    assert summary.endswith("all agree with numpy.")
    assert n_calls == ops == result["timed"]
    assert result["limited"] == ["submissions", 3]
    assert result["compiled"] == 1
    (site.extra / "performance.html").write_text(html, "utf-8")
    report = webgpu_engine.new_page()
    report.open(f"{site.url}/extra/performance.html")
    assert isinstance(report, PlaywrightTab)
    report.page.focus("#timeline")
    report.press("+", "Enter")
    assert " ms at " in report.run("() => document.querySelector('#read').textContent")
    rows = report.run("() => document.querySelectorAll('#kernels tr').length")
    assert rows == len(result["names"])
    assert report.run("() => performance.getEntriesByType('resource').length") == 0  # offline
    (site.extra / "debug.html").write_text(debug_html, "utf-8")
    report.open(f"{site.url}/extra/debug.html")
    headings = report.run("() => [...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert headings == ["Result", "Dispatches", "Against the roofline", "Kernels"]
    assert "fn main(" in report.run("() => document.querySelector('pre').textContent")
