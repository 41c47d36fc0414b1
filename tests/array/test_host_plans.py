"""A graph like an earlier one is computed by the earlier one's plan, with its own numbers."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array import host_loops, host_plans
from bascule.array.host_plans import HostPlans

N = 20_000


@pytest.fixture
def walks(on_wasm: None, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Chains whose loops were planned, from now on, on a device without plans."""
    result: list[Any] = []
    begin = host_loops.ChainRun.__init__

    def noted(walk: Any, chain: Any, values: Any) -> None:
        result.append(chain.space)
        begin(walk, chain, values)

    monkeypatch.setattr(host_loops.ChainRun, "__init__", noted)
    monkeypatch.setattr(HostPlans, "of", _forgetful(HostPlans.of))
    monkeypatch.setattr(host_loops, "MAX_LOOPS", 10_000)  # other tests have made many
    return result


def _forgetful(of: Callable[..., Any]) -> Callable[..., Any]:
    """As `of`, but without what tests before this one have planned."""
    seen: list[HostPlans] = []

    def own(plans: HostPlans, order: Any, wanted: Any) -> Any:
        if all(each is not plans for each in seen):
            seen.append(plans)
            plans._plans.clear()
        return of(plans, order, wanted)

    return own


def floats(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def test_the_same_chain_is_planned_once_and_has_its_own_numbers(
    walks: list[Any], rng: np.random.Generator
) -> None:
    for at in range(4):
        x, factor = floats(rng, N), np.float32(rng.uniform(1, 2))
        result = np.asarray((xp.asarray(x) * float(factor) + 0.5) * 1.5)
        assert np.allclose(result, (x * factor + np.float32(0.5)) * np.float32(1.5), rtol=1e-6)
        assert len(walks) == 1, at


def test_reductions_in_several_loops_again(walks: list[Any], rng: np.random.Generator) -> None:
    planned = 0
    for _ in range(3):
        x = floats(rng, 40, 600)
        array = xp.asarray(x)
        weight = xp.exp(array - xp.max(array, axis=1, keepdims=True))
        down = np.asarray(xp.sum(weight / xp.sum(weight, axis=1, keepdims=True), axis=0))
        wide = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
        assert np.allclose(down, (wide / wide.sum(1, keepdims=True)).sum(0), rtol=1e-5)
        planned = planned or len(walks)
        assert len(walks) == planned > 0


def test_what_planning_depends_on_is_told_apart(walks: list[Any], rng: np.random.Generator) -> None:
    x, y = np.abs(floats(rng, N)), floats(rng, N)
    whole = rng.integers(-1000, 1000, N).astype(np.int32)
    array, other, ints = xp.asarray(x), xp.asarray(y), xp.asarray(whole)
    cases: list[tuple[Any, Any]] = [
        (array**2 + 1.0, x**2 + 1),
        (array**3 + 1.0, x**3 + 1),
        (array * other - array, x * y - x),
        (array * other - other, x * y - y),
        (array * array - other, x * x - y),
        ((ints << 1) + 1, (whole << 1) + 1),
        ((ints << 40) + 1, np.ones_like(whole)),  # a loop shifts by less than 32
        (xp.reshape(array, (200, 100)) * 2.0 + 1.0, x.reshape(200, 100) * 2 + 1),
        (xp.reshape(array, (100, 200)) * 2.0 + 1.0, x.reshape(100, 200) * 2 + 1),
        (xp.sum(xp.reshape(array, (200, 100)) * 2.0, axis=0), x.reshape(200, 100).sum(0) * 2),
        (xp.sum(xp.reshape(array, (200, 100)) * 2.0, axis=1), x.reshape(200, 100).sum(1) * 2),
        (xp.astype(ints, xp.float32) * 0.5 + 1.0, whole * 0.5 + 1),
        (xp.astype(ints, xp.float32) * 0.5 > 1.0, whole * 0.5 > 1),
    ]
    for lazy, expected in cases:
        assert np.allclose(np.asarray(lazy), expected, rtol=1e-5), expected[:3]


def test_a_value_that_is_held_is_kept(walks: list[Any], rng: np.random.Generator) -> None:
    x = floats(rng, N)
    for held in (False, True, False, True):
        middle = xp.asarray(x) * 2.0 + 1.0
        end = middle * 3.0 - 1.0
        if not held:
            del middle
        assert np.allclose(np.asarray(end), (x * 2 + 1) * 3 - 1, atol=1e-5)
        if held:
            assert middle._node.host is not None
            assert np.allclose(np.asarray(middle), x * 2 + 1, atol=1e-6)
    assert len(walks) <= 3  # one loop, or two where the middle is kept


def test_arrays_that_lie_differently_are_planned_anew(
    walks: list[Any], rng: np.random.Generator
) -> None:
    x = floats(rng, 200, 100)
    for each in (x, np.asfortranarray(x), x, x.T.copy().T):
        node = xp.asarray(x)._node
        node.host = each
        result = np.asarray(xp.Array(node) * 2.0 + xp.asarray(x))
        assert np.allclose(result, x * 3, rtol=1e-6)


def test_plans_hold_no_arrays_and_are_few(
    walks: list[Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_plans, "MAX_PLANS", 3)
    found: list[HostPlans] = []
    of = HostPlans.of
    monkeypatch.setattr(HostPlans, "of", lambda p, *a: (found.append(p), of(p, *a))[1])
    x = floats(rng, N)
    array = xp.asarray(x) * 1.0
    result = array * 2.0 + 1.0
    np.asarray(result)
    node, host = weakref.ref(result._node), weakref.ref(result._node.host)
    del result
    gc.collect()
    assert node() is None
    assert host() is None
    for n in range(N, N + 10):
        assert np.allclose(np.asarray(xp.ones(n) * 2.0 + 1.0), 3.0)
    assert len(found[-1]._plans) == 3
    many = xp.asarray(x)
    for _ in range(host_plans.MAX_NODES):
        many = many + 1.0
    assert np.allclose(np.asarray(many), x + host_plans.MAX_NODES, atol=1e-3)
    assert all(len(key) < 6 * host_plans.MAX_NODES for key in found[-1]._plans)


def test_a_matrix_by_a_vector_again(
    walks: list[Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a page, where no array is copied for it: natively it is computed otherwise."""
    product = host_loops.HostLoops.product

    def of_a_page(loops: Any, node: Any, values: Any) -> Any:
        max_elements, loops.max_elements = loops.max_elements, None
        try:
            return product(loops, node, values)
        finally:
            loops.max_elements = max_elements

    monkeypatch.setattr(host_loops.HostLoops, "product", of_a_page)
    for _ in range(3):
        a, v = floats(rng, 131, 127), floats(rng, 127)
        result = np.asarray(xp.asarray(a) @ xp.asarray(v))
        assert np.allclose(result, a.astype(np.float64) @ v, atol=1e-4)
    assert len(walks) == 1
