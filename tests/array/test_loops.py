"""Loops of WebAssembly for chains of operations: numpy's numbers, each element read once."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array import host_loops
from bascule.array.blocks import Chain
from bascule.array.loop_layout import Layout
from bascule.array.loopable import is_loopable
from bascule.array.rows import ROWS
from bascule.array.wasm_rows import LOADS, TEMPLATES
from tests.array.test_elementwise import EDGES, SAME, cases, check, expected_of, numbers

DTYPES = list(LOADS)
FLOATS = [np.nan, np.inf, -np.inf, -0.0, 0.5, -0.5, 1.5, 127.9, -128.5, 255.0, 3e9, -3e9, 1e20]


@pytest.fixture
def loops(any_size: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a loop can compute is left to numpy."""
    by_numpy = Chain.evaluate

    def others(chain: Chain, values: Any) -> Any:
        assert not any(map(is_loopable, chain.nodes)), [node.op for node in chain.nodes]
        return by_numpy(chain, values)

    monkeypatch.setattr(Chain, "evaluate", others)


def test_every_row_has_instructions_or_is_known_to_have_none() -> None:
    missing = {
        (name, kind)
        for name, row in ROWS.items()
        for kind in row.wgsl
        if kind not in TEMPLATES.get(name, {})
    }
    # Lanes of integers have no division.
    expected = set(itertools.product(("floor_divide", "remainder", "pow"), "iu"))
    expected |= {("floor_divide", "f"), ("remainder", "f"), ("nextafter", "f")}
    assert missing == expected


@pytest.mark.parametrize("name", sorted({name for name, _ in cases()} & set(TEMPLATES)))
def test_as_numpy(loops: None, rng: np.random.Generator, name: str) -> None:
    row = ROWS[name]
    for dtype in [d for n, d in cases() if n == name and d in DTYPES]:
        if np.dtype(dtype).kind not in TEMPLATES[name]:
            continue
        operands = [numbers(rng, dtype, len(EDGES) ** 2 + 3) for _ in range(row.arity)]
        if row.arity == 2 and dtype == "float32":  # every edge beside every edge
            edges = np.array(EDGES, np.float32)
            operands[0][: len(EDGES) ** 2] = np.repeat(edges, len(EDGES))
            operands[1][: len(EDGES) ** 2] = np.tile(edges, len(EDGES))
        result = np.asarray(getattr(xp, name)(*map(xp.asarray, operands)))
        wide = [o.astype(np.float64) if o.dtype.kind == "f" else o for o in operands]
        with np.errstate(all="ignore"):
            expected = expected_of(name, operands if name in SAME else wide)
        check(name, dtype, result, expected, operands)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_angles_of_any_size(loops: None, rng: np.random.Generator, name: str) -> None:
    exponents = np.repeat(np.arange(-140, 128), 40)
    x = np.ldexp(rng.uniform(0.5, 1, exponents.size), exponents).astype(np.float32)
    x *= rng.choice([-1, 1], x.size).astype(np.float32)
    result = np.asarray(getattr(xp, name)(xp.asarray(x)))
    expected = np.array([getattr(math, name)(float(each)) for each in x])
    check(name, "float32", result, expected, [x])


@pytest.mark.parametrize(("before", "after"), list(itertools.product(DTYPES, DTYPES)))
def test_casts(loops: None, rng: np.random.Generator, before: str, after: str) -> None:
    x = numbers(rng, before, 203)
    if before == "float32":
        x[: len(FLOATS)] = FLOATS
    result = np.asarray(xp.astype(xp.asarray(x), xp.asarray([], dtype=after).dtype))
    with np.errstate(invalid="ignore"):
        cast = x.astype(after)
    if before == "float32" and np.dtype(after).kind in "iu":  # out of range: the nearest end
        whole = np.nan_to_num(x.astype(np.float64), nan=0.0)
        high = 2**31 - 1 if np.dtype(after).kind == "i" else 2**32 - 1
        cast = np.clip(whole, -(2**31), high).astype(np.int64).astype(after)
    assert np.array_equal(result, cast, equal_nan=before == after == "float32")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_choice_of_each_dtype(loops: None, rng: np.random.Generator, dtype: str) -> None:
    x, y = numbers(rng, dtype, 97), numbers(rng, dtype, 97)
    condition = rng.integers(0, 2, 97).astype(bool)
    result = np.asarray(xp.where(xp.asarray(condition), xp.asarray(x), xp.asarray(y)))
    floats = dtype == "float32"
    assert np.array_equal(result, np.where(condition, x, y), equal_nan=floats)


def in_parts_of(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of a loop computes so many elements."""
    parts = Layout.parts
    monkeypatch.setattr(Layout, "parts", lambda layout, maximum: parts(layout, n))


def shapes(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes that broadcast together: of a result, and of two operands."""
    whole = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 5, 7, 9, 33], rng.integers(1, 5)))
    operands = [tuple(n if rng.random() < 0.6 else 1 for n in whole) for _ in range(2)]
    return whole, operands[0][rng.integers(0, len(whole)) :], operands[1]


@pytest.mark.parametrize("block", [4, 50, 1 << 18])
def test_operands_that_broadcast(
    loops: None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    in_parts_of(block, monkeypatch)
    seen = 0
    while seen < 60:
        whole, first, second = shapes(rng)
        if np.prod(whole) < 4:  # smaller than a step: numpy's
            continue
        seen += 1
        x, y, z = (rng.standard_normal(s).astype(np.float32) for s in (whole, first, second))
        small = rng.integers(-100, 100, second).astype(np.int8)
        floats = xp.asarray(small, dtype=xp.float32)
        result = (xp.asarray(x) - xp.asarray(y)) * xp.asarray(z) + floats
        expected = (x - y) * z + small.astype(np.float32)
        assert np.array_equal(np.asarray(result), expected), (whole, first, second)


def reductions(rng: np.random.Generator, shape: tuple[int, ...]) -> list[Any]:
    """Axes to reduce over: all, single ones, the last ones, the first ones, any of them."""
    n = len(shape)
    some = tuple(int(a) for a in rng.permutation(n)[: rng.integers(1, n + 1)])
    return [None, 0, n - 1, tuple(range(n // 2, n)), tuple(range((n + 1) // 2)), some]


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions(
    any_size: None,
    by_loops: list[bool],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: str,
) -> None:
    if (name in ("any", "all")) != (dtype == "bool"):
        return  # numbers are cast to bool first, and truth is not summed as such
    in_parts_of(64, monkeypatch)
    for _ in range(12):
        sizes = rng.choice([1, 2, 4, 5, 6, 7, 8, 11, 17, 40], rng.integers(1, 4))
        shape = tuple(int(n) for n in sizes)
        x = numbers(rng, dtype, int(np.prod(shape)) + len(EDGES) + 3)[-int(np.prod(shape)) :]
        x = x.reshape(shape)
        if dtype == "float32":
            # So near to 1 that no lane of a product overflows before they are joined.
            power = 0.01 if name == "prod" else 0.1
            x = (np.sign(x) * np.abs(x) ** power).astype(np.float32)
        row = x[(0,) * (x.ndim - 1)]
        for axis in reductions(rng, shape):
            lazy, expected = _chained(name, dtype, xp.asarray(x), xp.asarray(row), x, row)
            reduced = getattr(xp, name)(lazy, axis=axis)
            del lazy  # what a user holds is no part of a chain
            before = len(by_loops)
            result = np.asarray(reduced)
            n_loops = len(by_loops) - before
            assert n_loops == 1 or not axis_has_elements(shape, axis), "chain and reduction are one"
            with np.errstate(over="ignore"):
                wide = getattr(np, name)(expected, axis=axis)
            if dtype != "float32":
                assert np.array_equal(result, wide.astype(result.dtype)), (shape, axis)
                continue
            size = getattr(np, name)(np.abs(expected), axis=axis) + 1e-6
            with np.errstate(all="ignore"):
                maximum = 4e-7 * max(1.0, (x.size / 64) ** 0.5) if name == "prod" else 4e-7
                close = (result == wide.astype(np.float32)) | (
                    np.abs(result - wide) <= maximum * size
                )
            assert close.all(), (shape, axis, result, wide)
    assert by_loops.count(True) > len(by_loops) // 2


def axis_has_elements(shape: tuple[int, ...], axis: Any) -> bool:
    """Whether a reduction over it is one."""
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return any(shape[at] > 1 for at in axes)


def _chained(name: str, dtype: str, x: Any, row: Any, host_x: Any, host_row: Any) -> Any:
    """A chain that ends with a reduction, and its numbers in the widest type."""
    if dtype == "bool":
        return x ^ row, host_x ^ host_row
    if dtype == "float32":
        return x * row, (host_x * host_row).astype(np.float64)
    return x + row, (host_x + host_row).astype(np.int64)


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_in_the_last_lanes_of_a_reduction(loops: None, axis: int) -> None:
    for n in (4, 5, 6, 7, 8):
        x = np.ones((n, n), np.float32)
        x[n - 1, n - 1] = np.nan
        for name in ("sum", "prod", "max", "min"):
            result = np.asarray(getattr(xp, name)(xp.asarray(x), axis=axis))
            assert np.array_equal(np.isnan(result), np.arange(n) == n - 1)
            assert (result[:-1] == (n if name == "sum" else 1)).all()


def test_a_long_sum_is_as_exact_as_in_doubles(loops: None, rng: np.random.Generator) -> None:
    x = rng.standard_normal(3_000_001).astype(np.float32)
    exact = np.float32(x.astype(np.float64).sum())
    assert abs(float(xp.sum(xp.asarray(x))) - exact) <= np.spacing(abs(exact))


def test_views_and_single_numbers(loops: None, rng: np.random.Generator) -> None:
    x = rng.standard_normal((37, 41)).astype(np.float32)
    lazy = xp.asarray(x)
    for view in (lambda a: a.T, lambda a: a[::-1, ::3], lambda a: a[3:4, 5:6] + a):
        result = np.asarray(abs(view(lazy)) * 2.5 - 1)
        assert np.array_equal(result, abs(view(x)) * np.float32(2.5) - np.float32(1))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_shifts_of_all_by_one_number(loops: None, rng: np.random.Generator, dtype: str) -> None:
    x = numbers(rng, dtype, 77)
    for bits in range(8 * x.itemsize):
        by = np.asarray(bits, dtype)
        left, right = xp.asarray(x) << xp.asarray(by), xp.asarray(x) >> xp.asarray(by)
        assert np.array_equal(np.asarray(left), x << by)
        assert np.array_equal(np.asarray(right), x >> by)


def test_random_words_are_numpys(loops: None) -> None:
    words = np.asarray(xp.random.Generator(7).bits(1001))
    key = [np.asarray(n, np.uint32) for n in (7, 0x9E3779B1)]
    assert np.array_equal(words, ROWS["philox"].numpy(np.arange(1001, dtype=np.uint32), *key))


@pytest.mark.parametrize("shape", [(), (1,), (1, 3), (2, 5)])
def test_chains_of_nothing_but_single_numbers(any_size: None, shape: tuple[int, ...]) -> None:
    x, y = xp.asarray(2.5), xp.asarray([[0.5]])
    result = np.asarray(xp.broadcast_to(x, shape) * y + x)
    assert np.array_equal(result, np.full(np.broadcast_shapes(shape, (1, 1)), 3.75))


def test_numpy_computes_what_no_loop_may_be_made_for(
    on_wasm: None, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(host_loops, "MAX_LOOPS", 0)
    x = rng.standard_normal(1 << 15).astype(np.float32)
    result = np.asarray(xp.asarray(x) * 3.5 - xp.asarray(x) / 7.25)
    assert np.array_equal(result, x * np.float32(3.5) - x / np.float32(7.25))
