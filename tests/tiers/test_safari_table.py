"""Safari by its version: the old table word for word, and what each version really ships."""

from __future__ import annotations

from typing import Any

import pytest

import bascule
from bascule.backend.adapter import DEFAULT_LIMITS, WANTED_LIMITS
from bascule.machine.requirements import CapabilityRequirements, meets_requirements
from bascule.machine.safari import (
    SAFARI_TABLE,
    Support,
    is_safari,
    parse_safari_version,
    safari_capabilities,
    safari_features,
    safari_support,
    safari_version,
)
from bascule.machine.safari_facts import SAFARI_FACTS

# The table as its document has it, and versions that each row speaks for.
LITERAL = """
| < 16.0 | Limited | ❌ No | ❌ No | ⚠️ Limited | ⚠️ Basic |
| 16.0 - 16.3 | Tier 1 | ⚠️ Partial | ❌ No | ⚠️ Limited | ⚠️ Basic |
| 16.4 - 16.x | Tier 1 | ⚠️ Partial | ❌ No | ✅ Enhanced | ✅ Improved |
| 17.0+ | Tier 2 | ⚠️ Partial | ⚠️ Partial | ✅ Improved | ✅ Enhanced |
"""
VERSIONS = {
    "< 16.0": ("9", "14.1", "15.6.1", "15.99"),
    "16.0 - 16.3": ("16", "16.0", "16.3", "16.3.1"),
    "16.4 - 16.x": ("16.4", "16.6", "16.10"),
    "17.0+": ("17", "17.0", "17.6", "18.0", "18.6"),
}
ROWS = [[c.strip() for c in line.strip("|").split("|")] for line in LITERAL.strip().splitlines()]


def safari(version: Any, **more: Any) -> dict[str, Any]:
    return {"name": "safari", "version": version, **more}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_old_table_holds_word_for_word(row: list[str]) -> None:
    for version in VERSIONS[row[0]]:
        result = safari_support(safari(version))
        assert result is not None
        cells = (
            result.four_bit,
            result.kv_cache,
            result.shader_compilation,
            result.memory_management,
        )
        messages = [result.versions, result.webgpu_tier, *(cell.value for cell in cells)]
        assert messages == row, version


def test_safari_26_needs_no_fallback() -> None:
    for version in ("26", "26.0", "26.6", "27.3", "99"):
        result = bascule.safari_support(safari(version))
        assert result is not None
        assert result.versions == "26.0+"
        assert not result.four_bit.needs_fallback
        assert not result.kv_cache.needs_fallback


def test_what_needs_a_fallback_is_what_the_mark_says() -> None:
    assert {s.name for s in Support if s.needs_fallback} == {"NO", "LIMITED", "BASIC", "PARTIAL"}


def test_rows_are_in_order() -> None:
    since = [row.since for row in SAFARI_TABLE]
    assert since == sorted(since)
    assert since[0] == (0, 0)


@pytest.mark.parametrize(
    ("told", "version", "number"),
    [
        ("17.0", (17, 0), 17.0),
        ("17", (17, 0), 17.0),
        ("16.4.1", (16, 4), 16.4),
        (16.4, (16, 4), 16.4),
        (26, (26, 0), 26.0),
        (" 18.2 beta", (18, 2), 18.2),
        # Past a version of one digit a float misleads; the pair does not.
        ("16.10", (16, 10), 16.1),
        ("", (0, 0), 0.0),
        (None, (0, 0), 0.0),
        ("latest", (0, 0), 0.0),
        ("-1", (0, 0), 0.0),
        ("9" * 500, (9999, 0), 9999.0),
        ({}, (0, 0), 0.0),
    ],
)
def test_versions_are_read(told: Any, version: tuple[int, int], number: float) -> None:
    assert safari_version(safari(told)) == version
    assert parse_safari_version(safari(told)) == number
    assert safari_support(safari(told)) is not None


@pytest.mark.parametrize(
    "info", [None, {}, {"name": "chrome", "version": "26"}, {"version": "26"}, {"name": None}]
)
def test_it_answers_for_a_safari_only(info: Any) -> None:
    assert not is_safari(info)
    assert safari_support(info) is None
    assert safari_capabilities(info) is None
    assert safari_features(info) == {}


def test_names_of_safari() -> None:
    for name in ("safari", "Safari", "Mobile Safari", "SAFARI"):
        assert is_safari({"name": name})
        assert safari_support({"name": name}) == SAFARI_TABLE[0]  # the careful answer


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("webgpu", "18.6", "26"),
        ("shader-f16", "18.6", "26.0"),
        ("subgroups", "27.2", "27.3"),
        ("jspi", "26.6", "27"),
        ("threads", "15.1", "15.2"),
        ("wasm_simd", "16.3", "16.4"),
        ("wasm_relaxed_simd", "27.2", "27.3"),
        ("opfs", "15.1", "15.2"),
        ("opfs_writable", "18.6", "26"),
        ("indexeddb", "7", "8"),
    ],
)
def test_a_feature_begins_with_its_version(name: str, off: str, on: str) -> None:
    assert safari_features(safari(off))[name] is False
    assert safari_features(safari(on))[name] is True


def test_what_no_safari_has() -> None:
    ships = safari_features(safari("999"))
    assert [name for name, there in ships.items() if not there] == [
        "webnn",
        "device_memory",
        "compute_pressure",
    ]


def test_each_fact_has_its_source() -> None:
    assert len({fact.name for fact in SAFARI_FACTS}) == len(SAFARI_FACTS)
    for fact in SAFARI_FACTS:
        assert fact.source.startswith("https://")


def test_safari_26_as_a_record() -> None:
    result = safari_capabilities(safari("26.1"))
    assert result is not None
    assert result.host == "table"
    assert result.features == {"shader-f16", "timestamp-query"}
    assert result.limits == {name: DEFAULT_LIMITS[name] for name in WANTED_LIMITS}
    assert result.subgroup_min_size is None
    assert result.dispatch is None
    assert result.jspi is False
    assert result.webnn == set()
    assert result.memory_budget_nbytes == 1 << 30
    assert result.versions == {"safari": "26.1"}
    half = CapabilityRequirements(data_types=frozenset({"float16"}), needs=frozenset({"threads"}))
    assert meets_requirements(result, half)
    assert not meets_requirements(result, CapabilityRequirements(features=frozenset({"subgroups"})))


def test_an_older_safari_has_no_webgpu_whatever_the_table_calls_it() -> None:
    result = safari_capabilities(safari("17.0"))
    assert result is not None
    assert not result.has_adapter
    assert "26" in result.problems["webgpu"]
    assert result.wasm_simd
    assert not result.wasm_relaxed_simd
