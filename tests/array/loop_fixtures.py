"""Fixtures of the tests of generated loops, here and in a page (e2e/test_array_functions.py)."""

from __future__ import annotations

from typing import Any

import pytest

from bascule.array import groups, host_loops, host_plans


@pytest.fixture
def any_size(on_wasm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wasm tier computes arrays of any size in loops, single operations too."""
    monkeypatch.setattr(groups, "MIN_ELEMENTS", 1)
    monkeypatch.setattr(host_plans, "MAX_NODES", 0)  # none from a test of other sizes
    monkeypatch.setattr(host_loops, "LARGE", 1)
    monkeypatch.setattr(host_loops, "MAX_LOOPS", 10_000)
    monkeypatch.setattr(host_loops, "_is_faster_in_numpy", lambda chain: False)


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
