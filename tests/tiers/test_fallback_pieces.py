"""Pieces of FallbackManager's operations: which there are, what they move, which overlap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import GpuError
from tests.tiers.test_fallback_budgets import PLAIN, counted, normal

NAMES = ("key_cache", "value_cache", "key", "value")
TABLE = {"ids": np.arange(0, 8191, 17), "table": normal(8191, 64)}


@pytest.fixture(scope="module")
def device() -> Iterator[bascule.Device]:
    opened = bascule.sync(bascule.open_device("webgpu"))
    yield opened
    opened.close()


def run(device: Any, operation: str, inputs: Any, context: Any, **config: Any) -> Any:
    """Result, peak in bytes and what was taken."""
    config = {"device": device, **config}
    with bascule.FallbackManager(PLAIN, config=config, memory_threshold=1.0) as manager:
        result = manager.run_with_fallback(operation, inputs, context)
        [memory] = manager.get_performance_metrics()["memory_usage"].values()
        return result, memory["peak_nbytes"], manager.last_applied


@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=str)
@pytest.mark.parametrize("tokens", [1, 5, 299, 300])
def test_a_cache_by_slots_is_right_wherever_its_rows_go(
    device: bascule.Device, tokens: int, shape: tuple[int, ...]
) -> None:
    slots = 300
    caches, rows = normal(2, slots, *shape), normal(2, tokens, *shape)
    inputs = dict(zip(NAMES, (*caches, *rows), strict=True))
    divided: set[str] = set()
    for position in (0, 3, 298, 299, 300, 1040):
        expected = caches.copy()
        expected[:, (position + np.arange(tokens)) % slots] = rows
        for binding in (5000, 4200):
            context = {"position": position}
            result, _, taken = run(
                device, "kv_cache_update", inputs, context, binding_nbytes=binding
            )
            np.testing.assert_array_equal(result, expected)
            divided |= {each.reason.rpartition(" ")[2] for each in taken if each.parts > 1}
    assert "slots" in divided


def test_slots_without_a_new_row_are_not_moved(
    monkeypatch: pytest.MonkeyPatch, device: bascule.Device
) -> None:
    inputs = dict(zip(NAMES, (*normal(2, 512, 4, 16), *normal(2, 3, 4, 16)), strict=True))
    with counted(monkeypatch) as plain:
        expected, whole, _ = run(device, "kv_cache_update", inputs, {"position": 511})
    budget = whole // 8
    with counted(monkeypatch) as divided:
        result, peak, _ = run(
            device, "kv_cache_update", inputs, {"position": 511}, memory_budget_nbytes=budget
        )
    np.testing.assert_array_equal(result, expected)
    assert 0 < peak <= budget
    print(f"{divided.nbytes:,} of {plain.nbytes:,} bytes, {divided.dispatches} dispatches")
    # The last slot and the first two are in two pieces.
    assert divided.dispatches == 2
    assert plain.nbytes / 4 < 2 * divided.nbytes < plain.nbytes


class InFlight:
    now = maximum = started = 0
    fail_at = -1


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch, fail_at: int = -1) -> Iterator[InFlight]:
    """Count the reads that are in flight at a time; the one with that number fails."""
    seen = InFlight()
    read, finish = NativeGpu.read, NativeGpu._mapped

    def counting(self: NativeGpu, buffer: int, offset: int, into: Any) -> Any:
        seen.now += 1
        seen.maximum = max(seen.maximum, seen.now)
        return read(self, buffer, offset, into)

    async def finishing(self: NativeGpu, *arguments: Any) -> None:
        await finish(self, *arguments)
        seen.now -= 1
        seen.started += 1
        if seen.started == fail_at:
            raise GpuError("read", "planted")

    with monkeypatch.context() as patch:
        patch.setattr(NativeGpu, "read", counting)
        patch.setattr(NativeGpu, "_mapped", finishing)
        yield seen


def test_the_next_piece_is_queued_where_the_memory_allows_a_second_result(
    monkeypatch: pytest.MonkeyPatch, device: bascule.Device
) -> None:
    expected, whole, _ = run(device, "embedding_lookup", TABLE, {})
    piece = 0
    for budget, maximum in ((whole // 4, 2), (0, 1)):
        with reads(monkeypatch) as seen:
            result, peak, taken = run(
                device, "embedding_lookup", TABLE, {}, memory_budget_nbytes=budget or piece
            )
        np.testing.assert_array_equal(result, expected)
        assert taken[0].parts >= 4
        assert (seen.maximum, seen.now) == (maximum, 0)
        assert peak <= (budget or piece)
        # The same pieces, within what one of them takes alone: a second result does not fit.
        piece = peak - 64 * 128


def test_a_piece_that_fails_behind_another_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, device: bascule.Device
) -> None:
    _, whole, _ = run(device, "embedding_lookup", TABLE, {})
    device.backend.trim()
    before = device.backend.memory.now_nbytes
    errors: list[BaseException] = []
    config = {"device": device, "memory_budget_nbytes": whole // 4}
    with (
        reads(monkeypatch, fail_at=2) as seen,
        bascule.FallbackManager(
            PLAIN, config=config, memory_threshold=1.0, error_handler=errors.append
        ) as manager,
    ):
        result = manager.run_with_fallback("embedding_lookup", TABLE)
    assert [str(error) for error in errors] == ["GPU read failed: planted"]
    np.testing.assert_array_equal(result, TABLE["table"][TABLE["ids"]])  # by the next attempt
    device.backend.trim()
    assert (seen.now, device.backend.memory.now_nbytes) == (0, before)
