"""The measurement of all tiers: figures, reasons, and a report that is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bascule.base.progress import Progress
from bascule.errors import InputError
from bascule.observe.tier_bench import measure_tiers
from bascule.observe.tier_report import (
    COMPARED,
    UNITS,
    Fact,
    TierFigures,
    TierReport,
    measured,
    reported,
    unknown,
)
from tests.goldens import TINY_BERT

MODEL = str(TINY_BERT)


async def test_each_tier_that_works_has_figures_and_the_others_a_reason() -> None:
    heard: list[Progress] = []
    finished: list[str] = []
    report = await measure_tiers(
        MODEL,
        quick=True,
        environment={"browser": reported("none", "this test")},
        progress=heard.append,
        finished=lambda figures: finished.append(figures.tier),
    )
    assert [each.tier for each in report.tiers] == [
        *("webgpu", "webgpu-limited", "webnn", "wasm", "cpu")
    ]
    assert finished[0] == "cpu"  # with which the others are compared
    assert sorted(finished) == sorted(each.tier for each in report.tiers)
    works = {each.tier: each for each in report.tiers if not each.refused}
    assert {"webgpu", "webgpu-limited", "wasm", "cpu"} <= set(works)
    for tier, each in works.items():
        assert set(each.figures) == set(UNITS)
        for name, fact in each.figures.items():
            assert fact.source == "measured", (tier, name)
            assert fact.number is not None
            assert fact.number > 0 or name == "deviation"
        deviation = each.figures["deviation"].number
        assert deviation is not None
        assert deviation <= 1e-5
        assert (deviation == 0) == (tier == "cpu") or deviation > 0
    assert works["webgpu"].facts["software"].value is True
    assert works["webgpu"].facts["timed_by"].value == "timestamps"
    for name in COMPARED:
        slower = report.slowdowns[name]
        assert set(slower) == set(works)
        assert min(slower.values()) == 1
    if "webnn" not in works:
        assert "webnn" in next(t.refused for t in report.tiers if t.tier == "webnn")
    done = [each.done for each in heard]
    assert done == sorted(done)
    assert heard[-1].done == heard[-1].total
    assert TierReport.from_json(json.dumps(report.as_json())) == report


async def test_without_the_cpu_tier_no_deviation_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_CPU", "1")
    report = await measure_tiers(MODEL, quick=True, tiers=("wasm", "cpu"))
    wasm, cpu = report.tiers
    assert "BASCULE_DISABLE_CPU" in cpu.refused
    deviation = wasm.figures["deviation"]
    assert deviation.value is None
    assert deviation.source == "unknown: the cpu tier was not measured"
    assert report.slowdowns["copy"] == {"wasm": 1}


async def test_without_the_model_the_tier_is_measured_all_the_same() -> None:
    report = await measure_tiers("no-such-model", quick=True, tiers=("wasm",))
    figures = report.tiers[0].figures
    assert figures["matmul"].source == "measured"
    assert figures["one_warm"].source.startswith("unknown: ")
    assert "no-such-model" in figures["one_warm"].source
    assert TierReport.from_json(json.dumps(report.as_json())) == report


async def test_a_tier_that_there_is_not() -> None:
    with pytest.raises(InputError, match="wegbpu"):
        await measure_tiers(MODEL, tiers=("wegbpu",))


def report_of(**changes: Any) -> str:
    """A report's JSON, with other fields."""
    figures = dict.fromkeys(UNITS, measured(2.0))
    tier = TierFigures("wasm", "the CPU", "", {"device": unknown("it has no name")}, figures)
    report = TierReport(True, "tiny", {"browser": reported("X", "navigator.userAgent")}, (tier,))
    return json.dumps(report.as_json() | changes)


def test_times_and_rates_are_compared_the_right_way_round() -> None:
    def tier(name: str, value: float) -> TierFigures:
        return TierFigures(name, name, "", {}, dict.fromkeys(UNITS, Fact(value, "measured")))

    slowdowns = TierReport(True, "", {}, (tier("wasm", 2.0), tier("cpu", 8.0))).slowdowns
    assert slowdowns["one_warm"] == {"wasm": 1, "cpu": 4}
    assert slowdowns["copy"] == {"wasm": 4, "cpu": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        (report_of(version=2), "version 2"),
        (report_of(format="other"), "other"),
        (report_of(quick=1), "quick"),
        (report_of(tiers={}), "list of tiers"),
        (report_of(tiers=[{"tier": "cuda"}]), "cuda"),
        (report_of().replace('"copy": {', '"copied": {'), "figures"),
        (report_of().replace('"value": 2.0', '"value": "2"', 1), "number"),
        (report_of().replace('"source": "measured"', '"source": "guessed"', 1), "guessed"),
        (report_of().replace('"value": "X"', '"value": null'), "reported by navigator.userAgent"),
        (report_of(environment=[]), "environment"),
    ],
)
def test_what_is_no_report_is_rejected(text: str, said: str) -> None:
    assert TierReport.from_json(report_of()).model == "tiny"
    with pytest.raises(InputError, match=said):
        TierReport.from_json(text)
