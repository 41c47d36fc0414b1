"""Reports on the machine, awaited in a page: the compatibility matrix and PlatformInfo."""

from __future__ import annotations

import json
from typing import Any

from e2e.engines import Engine, Page

COMPATIBILITY = """
import json
import bascule
import js

async def all_of_it():
    reporter = bascule.HardwareCompatibilityReporter()
    reporter.check_components()
    await reporter.collect_hardware_detection_errors()
    await reporter.collect_model_integration_errors(js.location.origin + "/goldens/tiny-bert")
    tested = await reporter.test_full_hardware_stack()
    await reporter.generate_compatibility_matrix()
    result = reporter.as_json(matrix=True)
    result["page"] = reporter.generate_report("html")
    return result

json.dumps(await all_of_it())
"""
PLATFORM = """
import json
import bascule

async def all_of_it():
    checker = bascule.DeviceCompatibilityChecker
    info = await checker.get_platform_info()
    return {
        "info": info.as_json(),
        "text": str(info),
        "mps": await checker.is_mps_available(),
        "ane": await checker.is_ane_available(),
        "accelerator": str(await checker.get_accelerator()),
    }

json.dumps(await all_of_it())
"""


def told(page: Page, code: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(page.run("(code) => lab.run(code)", code))
    return result


def test_the_matrix_of_a_page(engine: Engine, shared_lab: Page) -> None:
    report = told(shared_lab, COMPATIBILITY)
    works = {each["tier"]: each["works"] for each in report["tiers"]}
    reasons = {each["tier"]: each["reason"] for each in report["tiers"]}
    assert list(works) == ["webgpu", "webgpu-limited", "webnn", "wasm", "cpu"]
    assert works["webgpu"] is engine.webgpu
    assert works["wasm"] is True
    assert works["cpu"] is None  # not opened: in a page WASM is always faster
    assert reasons["cpu"].startswith("wasm works")
    assert works["webnn"] is False
    assert reasons["webnn"]
    assert report["tested"] == {tier: "" for tier, runs in works.items() if runs}  # all are right
    for row in report["matrix"].values():
        assert {cell["basis"] for cell in row.values()} <= {"measured", "assumed"}
        assert row["webnn"] == {"level": "none", "basis": "measured", "reason": reasons["webnn"]}
    embedding = report["matrix"]["embedding"]
    assert embedding["wasm"]["basis"] == "measured"
    assert embedding["wasm"]["reason"].endswith(" ms a pass of a small model")
    assert embedding["cpu"] == {**embedding["wasm"], "basis": "assumed", "reason": "as wasm"}
    if engine.webgpu:  # an adapter in software is not timed
        assert embedding["webgpu"]["basis"] == "assumed"
        assert "typical elsewhere" in embedding["webgpu"]["reason"]
    sources = {each["name"]: each["source"] for each in report["hardware"]}
    assert {"cuda", "mps", "vulkan"} <= set(sources)
    assert all(sources.values())
    [fits] = [each for each in report["findings"] if each["error"] == "compatible"]
    assert "runs on" in fits["message"]
    assert "<!doctype html>" in report["page"]


def test_the_platform_of_a_page(engine: Engine, shared_lab: Page) -> None:
    result = told(shared_lab, PLATFORM)
    info = result["info"]
    sources = info.pop("sources")
    assert set(sources) == set(info)
    for name, value in info.items():
        kind = sources[name].split()[0].rstrip(":")
        assert kind in ("measured", "reported", "derived", "unknown"), name
        assert (value is None) <= (kind == "unknown"), name
        assert f"{name}: " in result["text"]
        assert f" ({sources[name]})" in result["text"]
    assert info["host"] == "page"
    assert info["webgpu_available"] is engine.webgpu
    assert info["dispatch"] is (True if engine.webgpu else None)
    assert info["operations_per_second"] > 1e6
    assert sources["operations_per_second"].startswith("measured by a product of matrices on ")
    assert info["webnn_devices"] == []
    assert sources["webnn_devices"].startswith("measured: ")
    assert result["mps"] is False
    assert result["ane"] is False
