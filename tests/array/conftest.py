"""One device a tier for all tests of arrays: a process opens each once."""

from __future__ import annotations

from typing import Any

import pytest

import bascule.array as xp
from bascule.array import groups, host_loops

TIERS = ["webgpu", "wasm", "cpu"]


@pytest.fixture
def on_wasm() -> None:
    """New arrays are made on the wasm tier."""
    xp.set_default_device("wasm")


@pytest.fixture
def any_size(on_wasm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wasm tier computes arrays of any size in loops, single operations too."""
    monkeypatch.setattr(groups, "LEAST_ELEMENTS", 1)
    monkeypatch.setattr(host_loops, "_LEAST_OPERATIONS", 1)
    monkeypatch.setattr(host_loops, "MOST_LOOPS", 10_000)


@pytest.fixture
def by_loops(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each chain that is worth a loop, whether one computed it: not without an axis of four."""
    computed, results = host_loops.HostLoops.computed, list[bool]()

    def noted(loops: Any, walk: Any) -> Any:
        result = computed(loops, walk)
        results.append(result is not None)
        return result

    monkeypatch.setattr(host_loops.HostLoops, "computed", noted)
    return results


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """New arrays are made on this tier."""
    xp.set_default_device(request.param)
    return request.param
