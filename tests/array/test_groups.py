"""Reductions and what follows from them in one loop of WebAssembly, over any axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array import blocks, loop_layout
from bascule.array.blocks import Chain
from bascule.array.graph import Node, ordered
from bascule.array.host_loops import ChainRun, HostLoops
from bascule.array.loop_layout import Layout
from bascule.array.loop_stages import LoopNest, Operand, stages_of

Numbers = Any


def close(result: Any, expected: Numbers, what: object) -> None:
    """Float32's numbers beside float64's, NaN and infinities at the same places."""
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.shape == expected.shape, what
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(result)), what
    assert np.array_equal(result[~finite], expected[~finite], equal_nan=True), what
    size = np.abs(expected[finite]).max(initial=1e-30)
    assert np.allclose(result[finite], expected[finite], rtol=2e-5, atol=2e-5 * size), what


def softmax(m: Any, x: Any, axis: Any) -> Any:
    weight = m.exp(x - m.max(x, axis=axis, keepdims=True))
    return weight / m.sum(weight, axis=axis, keepdims=True)


def layer_norm(m: Any, x: Any, axis: Any) -> Any:
    apart = x - m.mean(x, axis=axis, keepdims=True)
    return apart / m.sqrt(m.mean(apart * apart, axis=axis, keepdims=True) + 1e-5) * 1.5


def log_sum_exp(m: Any, x: Any, axis: Any) -> Any:
    high = m.max(x, axis=axis, keepdims=True)
    return m.log(m.sum(m.exp(x - high), axis=axis)) + m.max(x, axis=axis)


def spread(m: Any, x: Any, axis: Any) -> Any:
    return (m.max(x * 2.0, axis=axis) - m.min(x, axis=axis)) * 0.25 - m.sum(x, axis=axis)


def share_above(m: Any, x: Any, axis: Any) -> Any:
    above = x > m.mean(x, axis=axis, keepdims=True)
    return m.sum(m.where(above, x, x * 0.5), axis=axis) / (m.max(x, axis=axis) + 10.0)


FORMULAS = [softmax, layer_norm, log_sum_exp, spread, share_above]


def axes_of(rng: np.random.Generator, n: int) -> Any:
    """One axis, some of them or all."""
    some = tuple(sorted(int(a) for a in rng.permutation(n)[: rng.integers(1, n + 1)]))
    return [int(rng.integers(-n, n)), some, None][rng.integers(0, 3)]


@pytest.mark.parametrize("formula", FORMULAS)
def test_over_any_axes(
    any_size: None,
    by_loops: list[bool],
    rng: np.random.Generator,
    formula: Callable[[Any, Any, Any], Any],
) -> None:
    chains: list[int] = []
    for _ in range(60):
        sizes = rng.choice([1, 2, 3, 4, 5, 7, 15, 16, 17, 33], rng.integers(1, 4))
        # Multiples of 1/64: the variance of two numbers that nearly agree is mostly rounding error.
        x = np.float32(np.round(64 * rng.standard_normal(tuple(int(n) for n in sizes))) / 64)
        axis = axes_of(rng, x.ndim)
        before = len(by_loops)
        result = np.asarray(formula(xp, xp.asarray(x), axis))
        chains.append(len(by_loops) - before)
        close(result, formula(np, x.astype(np.float64), axis), (x.shape, axis))
    assert chains.count(1) > 36, "one loop computes all of it"
    assert by_loops.count(True) > 36


def test_formulas_made_by_chance(
    any_size: None, by_loops: list[bool], rng: np.random.Generator
) -> None:
    """Elements and their reductions combined in any way, some of them held by the user."""
    for _ in range(60):
        sizes = rng.choice([1, 2, 4, 5, 8, 18, 33], rng.integers(1, 4))
        x = rng.uniform(0.5, 1.5, tuple(int(n) for n in sizes)).astype(np.float32)
        axis, held = axes_of(rng, x.ndim), list[Any]()
        pool = [(xp.asarray(x), x.astype(np.float64))]
        for _ in range(rng.integers(2, 9)):
            pool.append(_next_value(rng, pool, axis))
            if rng.random() < 0.15:
                held.append(pool[-1])
        results = [pool[-1], *held]
        del pool  # what a user holds is no part of a chain
        for lazy, numbers in results:
            close(lazy, numbers, (x.shape, axis))
    assert by_loops.count(True) > 25


def _next_value(rng: np.random.Generator, pool: list[Any], axis: Any) -> Any:
    lazy, numbers = pool[rng.integers(0, len(pool))]
    other, its_numbers = pool[rng.integers(0, len(pool))]
    name = str(rng.choice(["sum", "max", "min", "mean", "plus", "times", "over", "root", "exp"]))
    if name in ("sum", "max", "min", "mean"):
        if numbers.shape != pool[0][1].shape:
            return lazy * 0.5, numbers * 0.5
        results = [
            getattr(m, name)(v, axis=axis, keepdims=True) for m, v in ((xp, lazy), (np, numbers))
        ]
        scale = numbers.size if name == "sum" else 1
        return results[0] / scale, results[1] / scale
    if name == "plus":
        return lazy + other * 0.5, numbers + its_numbers * 0.5
    if name == "times":
        return lazy * other * 0.5, numbers * its_numbers * 0.5
    if name == "over":
        return lazy / (abs(other) + 1.0), numbers / (abs(its_numbers) + 1.0)
    if name == "root":
        return xp.sqrt(abs(lazy)), np.sqrt(abs(numbers))
    return xp.exp(-abs(lazy)), np.exp(-abs(numbers))


def test_reduced_values_that_broadcast_along_another_axis(
    any_size: None, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((24, 24)).astype(np.float32)
    wide, lazy = x.astype(np.float64), xp.asarray(x)
    close(lazy - xp.sum(lazy, axis=1), wide - wide.sum(axis=1), "rows' sums along columns")
    close(lazy - xp.sum(lazy, axis=0), wide - wide.sum(axis=0), "columns' sums")
    total = xp.sum(lazy, axis=1)
    both = total * 2.0 - xp.reshape(total, (24, 1))
    sums = wide.sum(axis=1)
    close(both, sums * 2 - sums[:, None], "a sum beside itself as a column")


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nan_and_infinities_at_every_place(
    any_size: None, rng: np.random.Generator, name: str, axis: int
) -> None:
    for value in (np.nan, np.inf, -np.inf):
        for n in (4, 5, 16, 19, 35):
            x = rng.uniform(0.5, 1.5, (3, n, n)).astype(np.float32)
            at = tuple(int(rng.integers(0, size)) for size in x.shape)
            x[at] = value
            result = getattr(xp, name)(xp.asarray(x), axis=axis) * 1.0
            close(result, getattr(np, name)(x.astype(np.float64), axis=axis) * 1.0, (n, at))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_whole_numbers_in_stages(any_size: None, rng: np.random.Generator, dtype: str) -> None:
    for _ in range(10):
        shape = tuple(int(n) for n in rng.choice([2, 4, 7, 18], 3))
        x = rng.integers(0, 100, shape).astype(dtype)
        for axis in (0, 1, 2, (0, 2), (1, 2)):
            lazy = xp.asarray(x)
            result = lazy - xp.max(lazy, axis=axis, keepdims=True) + xp.min(lazy)
            with np.errstate(over="ignore"):
                expected = x - x.max(axis=axis, keepdims=True) + x.min()
            assert np.array_equal(np.asarray(result), expected), (shape, axis)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("columns", [4, 7, 1023, 1024, 1025, 1027, 1028, 2049, 3100])
def test_columns_in_blocks_at_every_edge(
    any_size: None, by_loops: list[bool], rng: np.random.Generator, name: str, columns: int
) -> None:
    """Row by row, with the accumulators of a block of columns in memory."""
    for rows in (15, 16, 17):
        x = rng.uniform(0.5, 1.5, (2, rows, columns)).astype(np.float32)
        x[1, rng.integers(0, rows), columns - 1] = np.nan
        row = rng.standard_normal(columns).astype(np.float32)
        result = getattr(xp, name)(xp.asarray(x) * 1.5, axis=1) + xp.asarray(row)
        wide = (x * np.float32(1.5)).astype(np.float64)
        close(result, getattr(np, name)(wide, axis=1) + row, (rows, columns))
        whole = rng.integers(-3, 4, (rows, columns)).astype(np.int32)
        result = np.asarray(getattr(xp, name)(xp.asarray(whole) + 1, axis=0))
        expected = getattr(np, name)(whole + 1, axis=0, **_as_int32(name))
        assert np.array_equal(result, expected), (rows, columns)
        truth = np.asarray(xp.any(xp.asarray(whole) > 2, axis=0))
        assert np.array_equal(truth, (whole > 2).any(axis=0))
    assert all(by_loops)


@pytest.mark.parametrize("columns", [4, 19, 1023, 1026, 2050])
@pytest.mark.parametrize("rows", [2, 15, 16, 40])
def test_operands_that_columns_have_in_common(
    any_size: None, by_loops: list[bool], rng: np.random.Generator, rows: int, columns: int
) -> None:
    """Read for each row, and again for the result; beside operands that rows have in common."""
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    row, column = rng.standard_normal(columns), rng.standard_normal((rows, 1))
    numbers = [each.astype(np.float32) for each in (x, row, column)]
    for axis, common in ((0, row), (1, column[:, 0])):
        operands = [*numbers, common.astype(np.float32)]
        result = _of_common_numbers(xp, *map(xp.asarray, operands), axis=axis)
        wide = (each.astype(np.float64) for each in operands)
        close(result, _of_common_numbers(np, *wide, axis=axis), (rows, columns, axis))
    assert len(by_loops) == 2
    assert by_loops.count(True) >= 1


def _of_common_numbers(m: Any, x: Any, row: Any, column: Any, common: Any, *, axis: int) -> Any:
    total = m.sum((x - row) * column * row, axis=axis)
    return total * common + m.max(x * row, axis=axis)


def test_a_shared_reduction_beside_another_over_the_same_axis(
    any_size: None, rng: np.random.Generator
) -> None:
    """What follows from it alone is known before the pass, and is read there."""
    for shape in ((40, 33), (17, 1030), (33, 40)):
        x = rng.standard_normal(shape).astype(np.float32)
        for axis in (0, 1):
            lazy, wide = xp.asarray(x), x.astype(np.float64)
            total = xp.sum(lazy, axis=axis, keepdims=True)
            result = xp.sum(lazy * (total * 0.5 + 1.0), axis=axis)
            expected = wide.sum(axis, keepdims=True)
            close(result, (wide * (expected * 0.5 + 1)).sum(axis), (shape, axis))
            close(total, expected, "it is held")


def _as_int32(name: str) -> dict[str, Any]:
    return {"dtype": np.int32} if name in ("sum", "prod") else {}


def n_body(m: Any, p: Any) -> Any:
    apart = p[None, :, :] - p[:, None, :]
    near = m.sum(apart * apart, axis=2, keepdims=True) + 0.01
    return p + m.sum(apart / (near * m.sqrt(near)), axis=1) * 0.001


def test_all_pairs_take_two_loops_and_no_array_of_all_their_coordinates(
    any_size: None,
    by_loops: list[bool],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operands: list[int] = []
    parts = loop_layout.Layout.parts

    def noted(layout: Layout, max_elements: int | None) -> Any:
        operands.extend(each.size for each in layout.operands)
        return parts(layout, max_elements)

    monkeypatch.setattr(loop_layout.Layout, "parts", noted)
    p = rng.standard_normal((150, 3)).astype(np.float32)
    close(n_body(xp, xp.asarray(p)), n_body(np, p.astype(np.float64)), p.shape)
    assert by_loops == [True, True]
    assert max(operands) == 150 * 150  # the distances


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (0, 2), (1, 2)])
def test_reductions_over_any_axes_copy_nothing(
    any_size: None, rng: np.random.Generator, axis: Any
) -> None:
    x = rng.standard_normal((5, 6, 7)).astype(np.float32)
    lazy = xp.sum(xp.asarray(x) * 2.0, axis=axis)
    (chain,) = _chains(lazy._node)  # pyright: ignore[reportPrivateUsage]
    walk = ChainRun(chain, [each.host for each in chain.reads])
    layout = loop_layout.layout_of(walk.operands, chain.space, chain.axes, (x.dtype, False))
    assert layout is not None
    assert all(
        np.shares_memory(mine, theirs)
        for mine, theirs in zip(layout.operands, walk.operands, strict=True)
    )


def _chains(node: Node) -> list[Chain]:
    return blocks.chains(ordered([node]), {id(node)}, loops=True)


def test_a_layout_of_transposed_operands_writes_a_transposed_result(
    any_size: None, by_loops: list[bool], rng: np.random.Generator
) -> None:
    for shape in ((3, 40), (2, 30, 3), (5, 1, 9), (40, 3)):
        x = rng.standard_normal(shape).astype(np.float32)
        row = rng.standard_normal(shape[-1]).astype(np.float32)
        order = tuple(range(len(shape)))[::-1]
        lazy = xp.permute_dims(xp.asarray(x), order) * 2.0 + 1.0
        assert np.array_equal(np.asarray(lazy), x.transpose(order) * np.float32(2) + np.float32(1))
        close(xp.asarray(x) - xp.asarray(row), x.astype(np.float64) - row, shape)
    assert all(by_loops)


def test_an_expensive_value_is_computed_once_for_all_stages(
    on_wasm: None, rng: np.random.Generator
) -> None:
    """Exponentials are stored between two passes; differences are computed again."""
    x = xp.asarray(rng.standard_normal((64, 512)).astype(np.float32))
    (chain,) = _chains(softmax(xp, x, 1)._node)  # pyright: ignore[reportPrivateUsage]
    walk = ChainRun(chain, [each.host for each in chain.reads])
    ops = [each.op for each in walk.operations]
    assert sorted(ops) == ["divide", "exp", "reduce", "reduce", "subtract"]
    kinds = tuple(Operand(each.dtype, True, True) for each in walk.operands)
    stages = stages_of(LoopNest(kinds, tuple(walk.operations), 1, 0, True))
    exp = len(kinds) + ops.index("exp")
    assert len(stages.passes) == 3
    assert stages.stored == (exp,)
    assert [exp in each.computes for each in stages.passes] == [False, True, False]


@pytest.mark.parametrize("sides", [(4, 4096), (131, 127), (300, 65), (257, 1025)])
def test_a_matrix_by_a_vector_is_one_loop(
    any_size: None,
    by_loops: list[bool],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    sides: tuple[int, int],
) -> None:
    """As in a page, where no array is copied for it."""
    product = HostLoops.product

    def of_a_page(loops: HostLoops, node: Node, values: Any) -> Any:
        max_elements, loops.max_elements = loops.max_elements, None
        try:
            return product(loops, node, values)
        finally:
            loops.max_elements = max_elements

    monkeypatch.setattr(HostLoops, "product", of_a_page)
    a = rng.standard_normal(sides).astype(np.float32)
    v = rng.standard_normal(sides[1]).astype(np.float32)
    wide = a.astype(np.float64) @ v
    close(xp.asarray(a) @ xp.asarray(v), wide, sides)
    assert by_loops == [True]
    close(xp.asarray(v) @ xp.asarray(a).T, wide, sides)


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("rows", [4, 12, 64, 66, 129, 192, 1003])
def test_rows_shorter_than_a_vector_beside_one_of_them(
    any_size: None, by_loops: list[bool], rng: np.random.Generator, rows: int, columns: int
) -> None:
    """Points less their mean: the mean is repeated a few times, not for all points."""
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    row, column = x[rows // 2], x[:, :1]
    result = np.asarray((xp.asarray(x) - xp.asarray(row)) * xp.asarray(column))
    assert np.array_equal(result, (x - row) * column)
    result = xp.sum((xp.asarray(x) - xp.asarray(row)) ** 2, axis=1)
    close(result, ((x.astype(np.float64) - row) ** 2).sum(axis=1), (rows, columns))
    assert all(by_loops)


def test_a_repeated_row_takes_little_memory(any_size: None, rng: np.random.Generator) -> None:
    x, row = (rng.standard_normal(shape).astype(np.float32) for shape in ((6400, 3), (1, 3)))
    layout = loop_layout.layout_of([x, row], x.shape, (), (x.dtype, False))
    assert layout is not None
    assert [each.size for each in layout.operands] == [x.size, 64 * 3]
    assert layout.vector.size == 64 * 3


def test_squares_are_exact_products(any_size: None, rng: np.random.Generator) -> None:
    x = np.concatenate([rng.standard_normal(50), [np.nan, np.inf, -np.inf, -0.0, 1e30, 1e-30]])
    x = x.astype(np.float32)
    with np.errstate(all="ignore"):
        assert np.array_equal(np.asarray(xp.asarray(x) ** 2 + 0.0), x * x + 0, equal_nan=True)


def test_cheap_values_are_computed_in_each_loop_and_expensive_ones_once(
    any_size: None, by_loops: list[bool], rng: np.random.Generator
) -> None:
    x = rng.standard_normal((32, 48)).astype(np.float32)
    for function, n_loops in ((lambda m, a: a * 2.0, 2), (lambda m, a: m.exp(a), 3)):
        by_loops.clear()
        value, wide = function(xp, xp.asarray(x)), function(np, x.astype(np.float64))
        rows = xp.sum(value * 0.5, axis=1, keepdims=True)
        result = value + rows * xp.sum(value * 0.5, axis=0, keepdims=True)
        del value, rows  # what a user holds has memory of its own
        expected = wide + 0.25 * wide.sum(1, keepdims=True) * wide.sum(0, keepdims=True)
        close(result, expected, n_loops)
        assert by_loops == [True] * n_loops
