"""The compatibility reporter: what it says is what this machine does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.util import find_spec as real_find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bascule import HardwareCompatibilityReporter
from bascule.choosing.speeds import Sample, Speeds
from bascule.choosing.tier_records import TierFacts
from bascule.cli.main import main
from bascule.errors import InputError
from bascule.machine.hardware import Hardware, detect_hardware
from bascule.models import classes
from bascule.models.classes import CLASSES, examples_of
from bascule.models.table import FAMILIES
from bascule.observe import compatibility
from bascule.observe.findings import Cell
from tests.goldens import TINY_BERT


def nothing(_: str) -> None:
    return None


FAST = Speeds({"product": (Sample(10**9, 0.02, 0.02),), "blocks": (Sample(10**8, 1.0, 1.0),)})
TIERS = (
    TierFacts("webgpu", "no adapter was found"),
    TierFacts("webgpu-limited", "cpu works", better="cpu"),
    TierFacts("wasm", device_name="wasmtime", speeds=FAST, total_nbytes=1000),
    TierFacts("cpu", device_name="numpy", speeds=FAST),
)


def surveying(*tiers: TierFacts) -> Callable[[object], Awaitable[SimpleNamespace]]:
    """A survey that finds those tiers."""

    async def survey(_: object, *, fresh: bool) -> SimpleNamespace:
        return SimpleNamespace(tiers=tiers)

    return survey


@pytest.fixture
def reporter(monkeypatch: pytest.MonkeyPatch) -> HardwareCompatibilityReporter:
    """Of a machine without a GPU, whose wasm tier has hardly any memory."""
    made = HardwareCompatibilityReporter()
    monkeypatch.setattr(made, "_tiers", TIERS)
    return made


def test_the_guide(tmp_path: Path) -> None:
    reporter = HardwareCompatibilityReporter()
    reporter.check_components()
    reporter.collect_hardware_detection_errors()
    reporter.collect_resource_pool_errors()
    reporter.collect_model_integration_errors(str(TINY_BERT))
    reporter.test_full_hardware_stack()
    markdown = reporter.generate_report(format="markdown")
    report = json.loads(reporter.generate_report(format="json"))
    works = {each["tier"] for each in report["tiers"] if each["works"]}
    assert {"webgpu", "wasm", "cpu"} <= works
    assert report["tested"] == dict.fromkeys(works, "")  # each agrees with numpy
    assert f"Bascule {report['version']}" in markdown
    assert all(finding["message"] in markdown for finding in report["findings"])
    assert reporter.save_to_file(markdown, tmp_path / "report.md").read_text("utf-8") == markdown
    assert "<script" in reporter.generate_report(format="html")
    with pytest.raises(InputError, match="format"):
        reporter.generate_report(format="pdf")


def test_hardware_is_told_by_its_drivers_files(tmp_path: Path) -> None:
    bare = {each.name: each for each in detect_hardware(tmp_path, nothing)}
    assert [bare[name].present for name in ("cuda", "rocm", "vulkan", "npu")] == [False] * 4
    for file in ("proc/driver/nvidia/version", "dev/kfd", "dev/accel/accel0"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    card = tmp_path / "sys/class/drm/card0/device"
    card.mkdir(parents=True)
    (card / "mem_info_vram_total").write_text("17163091968\n")
    results = {each.name: each for each in detect_hardware(tmp_path, nothing)}
    assert results["cuda"] == Hardware("cuda", True, "reported by /proc/driver/nvidia/version")
    assert results["rocm"].memory_nbytes == 17163091968
    assert results["npu"].present
    (card / "mem_info_vram_total").write_text("plenty")
    results = {each.name: each for each in detect_hardware(tmp_path, nothing)}
    assert results["rocm"].memory_nbytes is None


def test_a_library_without_a_device_tells_nothing(tmp_path: Path) -> None:
    results = {each.name: each for each in detect_hardware(tmp_path, lambda name: f"lib{name}.so")}
    assert results["cuda"] == Hardware("cuda", None, "reported by the library libcuda.so")
    assert results["vulkan"].present


def test_four_severities(
    reporter: HardwareCompatibilityReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {"numpy": "critical", "wgpu": "error", "wasmtime": "warning"}
    monkeypatch.setattr(
        compatibility, "find_spec", lambda name: None if name in gone else real_find_spec(name)
    )
    result = reporter.check_components()
    assert {each.component: each.severity for each in result} == gone
    assert all(each.recommendations for each in result)
    assert reporter.check_components() == result
    assert len(reporter.findings) == 3  # each is kept once
    reporter.collect_model_integration_errors(str(TINY_BERT))
    report = json.loads(reporter.generate_report("json"))
    severities = [finding["severity"] for finding in report["findings"]]
    assert severities == ["critical", "error", "error", "warning", "info"]
    assert report["counts"] == {"critical": 1, "error": 2, "warning": 1, "info": 1}


def test_a_page_misses_no_package_of_the_outside(
    reporter: HardwareCompatibilityReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "IN_PAGE", True)
    monkeypatch.setattr(compatibility, "find_spec", lambda _: None)
    assert [each.component for each in reporter.check_components()] == ["numpy"]


def test_a_model_is_held_against_each_tier(reporter: HardwareCompatibilityReporter) -> None:
    too_large, compatible = reporter.collect_model_integration_errors(str(TINY_BERT))
    assert (too_large.severity, compatible.severity) == ("error", "info")
    assert "does not run on wasm" in too_large.message
    assert "runs on cpu. It is a small embedding model, by its config.json." in compatible.message
    (unknown,) = reporter.collect_model_integration_errors("no-such-model-at-all")
    assert (unknown.severity, unknown.component) == ("error", "no-such-model-at-all")
    assert ".." not in unknown.message
    (guessed,) = reporter.collect_model_integration_errors("openai/no-such-whisper")
    assert guessed.message.endswith("It is an audio model, by its name.")


async def test_where_a_loop_runs_methods_are_awaited(
    reporter: HardwareCompatibilityReporter,
) -> None:
    begun = reporter.collect_hardware_detection_errors()
    with pytest.raises(InputError, match="still runs"):
        reporter.generate_report()
    assert await begun == reporter.findings != []
    assert (await reporter.generate_compatibility_matrix())["embedding"]["cpu"].level == "high"
    assert "no adapter was found" in reporter.generate_report()


def test_little_memory(
    reporter: HardwareCompatibilityReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[Any] = [1 << 20, None, 1 << 40]
    monkeypatch.setattr(compatibility, "free_nbytes", lambda: sizes.pop(0))
    (little,) = reporter.collect_resource_pool_errors()
    assert (little.severity, little.error) == ("warning", "memory_pressure")
    (unknown,) = reporter.collect_resource_pool_errors()
    assert unknown.severity == "info"
    assert reporter.collect_resource_pool_errors() == []


def test_the_matrix_says_what_was_measured(reporter: HardwareCompatibilityReporter) -> None:
    matrix = reporter.generate_compatibility_matrix()
    assert matrix["embedding"]["webgpu"] == Cell("none", "measured", "no adapter was found")
    assert matrix["embedding"]["cpu"].level == "high"
    assert matrix["embedding"]["webgpu-limited"] == Cell("high", "assumed", "as cpu")
    assert matrix["text_generation"]["cpu"].level == "low"
    assert matrix["vision"]["cpu"] == Cell(
        "medium", "assumed", "by products alone; 360 ms a pass of a small model"
    )
    assert matrix["vision"]["webgpu"] == Cell("none", "measured", "no adapter was found")
    assert matrix["audio"]["cpu"].basis == "assumed"
    reporter._tested["cpu"] = "it is 3 off"
    failed = reporter.generate_compatibility_matrix()["embedding"]["cpu"]
    assert failed == Cell("none", "measured", "it is 3 off")


def test_the_matrix_follows_the_table_of_families(
    reporter: HardwareCompatibilityReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = Cell("none", "assumed", "this version has no model of that family")
    for family, examples in ((name, examples_of(name)) for name in CLASSES):
        cells = reporter.generate_compatibility_matrix()[family]
        assert (cells["cpu"] == none) == (not examples)
    assert examples_of("vision")
    monkeypatch.setattr(classes, "FAMILIES", tuple(f for f in FAMILIES if "see" not in f.tasks))
    cells = reporter.generate_compatibility_matrix()["vision"]
    assert set(cells.values()) == {none}


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--matrix", "--test-hardware", "--check-model", str(TINY_BERT)]
    assert main(["compat", "--collect-all", *arguments, "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["matrix"]["embedding"]["cpu"]["level"] in ("high", "medium", "low")
    assert report["tested"]["cpu"] == ""
    assert report["hardware"]
    page = tmp_path / "report.html"
    assert main(["compat", "--format", "html", "--output", str(page)]) == 0
    data = page.read_text("utf-8").split('id="data">')[1].split("</script>")[0]
    assert json.loads(data)["hardware"] == report["hardware"]
    assert main(["compat", "--output", str(tmp_path / "no" / "where")]) == 1


def test_the_exit_code_tells_whether_the_model_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compatibility, "survey", surveying(*TIERS))
    assert main(["compat", "--check-model", str(TINY_BERT)]) == 0  # one tier is enough
    for unable, result in (("no-such-model", "was not found"), (str(TINY_BERT), "no tier here")):
        with pytest.raises(SystemExit) as exit:
            main(["compat", "--check-model", unable])
        assert exit.value.code == 1
        assert result in capsys.readouterr().out
        monkeypatch.setattr(compatibility, "survey", surveying(*TIERS[:3]))
    assert main(["compat", "--check-model", ""]) == 1
    assert "empty name" in capsys.readouterr().err


def test_a_vulkan_of_the_cpu_is_told(
    reporter: HardwareCompatibilityReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vulkan = Hardware("vulkan", True, "reported by the library libvulkan.so.1")
    card = Hardware("rocm", True, "reported by /dev/kfd", 16 << 30)
    monkeypatch.setattr(compatibility, "detect_hardware", lambda: (vulkan, card))
    reporter.collect_hardware_detection_errors()
    assert reporter.hardware == (vulkan, card)
    software = TierFacts("webgpu", device_name="llvmpipe", software=True, speeds=FAST)
    monkeypatch.setattr(reporter, "_tiers", (software, *TIERS[2:]))
    reporter.collect_hardware_detection_errors()
    assert reporter.hardware == (
        replace(vulkan, source=f"{vulkan.source}; in software: llvmpipe"),
        card,
    )
    result = reporter.generate_report("markdown")
    assert "| rocm | yes | 16,384 MiB |" in result
    assert "| vulkan | yes | unknown |" in result
