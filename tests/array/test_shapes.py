"""Views, reductions, indexing, sorting and products against numpy in float64, on each tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array import build
from bascule.array.errors import ArrayIndexError, DTypeError, ShapeError

SHAPES = [(), (1,), (7,), (0,), (3, 1), (4, 5), (2, 0, 3), (2, 3, 4, 5), (1, 1, 6)]


def same(found: Any, expected: Any, rtol: float = 0.0) -> None:
    got = np.asarray(found)
    want = np.asarray(expected)
    assert got.shape == want.shape
    if rtol:
        assert np.allclose(got, want, rtol=rtol, atol=rtol, equal_nan=True), (got, want)
    else:
        assert np.array_equal(got, want, equal_nan=got.dtype.kind == "f"), (got, want)


def floats(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    result = rng.standard_normal(shape).astype(np.float32)
    return np.asarray(result, np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_views_are_what_numpy_slices(
    tier: str, rng: np.random.Generator, shape: tuple[int, ...]
) -> None:
    x = floats(rng, shape)
    array = xp.asarray(x) * 1  # computed, not the copy
    keys: list[Any] = [..., None, (None, ..., None)]
    if shape:
        keys += [slice(None, None, -1), slice(1, None, 2), slice(5, 1, -2), slice(9, 20)]
        keys += [(..., slice(None, None, -2)), (slice(0, 1), ..., None)]
    if shape and shape[0]:
        keys += [0, -1, (0, ...), (..., None, -1) if shape[-1] else 0]
    for key in keys:
        same(array[key], x[key])
        same(array[key] + 1, x[key] + np.float32(1))
    same(xp.permute_dims(array, tuple(range(x.ndim))[::-1]), x.T)
    same(
        xp.reshape(xp.flip(array), (-1,)) if x.size else array, np.flip(x).ravel() if x.size else x
    )
    same(xp.broadcast_to(array, (2, *shape)), np.broadcast_to(x, (2, *shape)))
    same(xp.flip(xp.flip(array)), x)


def test_views_of_views_reshape_as_numpy(tier: str, rng: np.random.Generator) -> None:
    x = floats(rng, (4, 6, 10))
    array = xp.asarray(x)
    pairs = [
        (array[:, ::-1, 2:8:3], x[:, ::-1, 2:8:3]),
        (xp.permute_dims(array, (2, 0, 1)), x.transpose(2, 0, 1)),
        (xp.broadcast_to(array[:, :1], (4, 6, 10)), np.broadcast_to(x[:, :1], (4, 6, 10))),
    ]
    for view, expected in pairs:
        for shape in [(-1,), (2, -1), (4, -1, 2), (-1, 1, 4)]:
            same(xp.reshape(view, shape), expected.reshape(shape))
        same(view[1:, 0], expected[1:, 0])


@pytest.mark.parametrize("shape", [s for s in SHAPES if s])
def test_reductions(tier: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    x = floats(rng, shape)
    array = xp.asarray(x) * 2
    wide = x.astype(np.float64) * 2
    axes: list[Any] = [None, *range(-1, len(shape)), tuple(range(len(shape)))[::2]]
    for axis in axes:
        for keepdims in (False, True):
            options = {"axis": axis, "keepdims": keepdims}
            for name in ("sum", "prod"):
                same(getattr(xp, name)(array, **options), getattr(np, name)(wide, **options), 2e-5)
            for name in ("any", "all"):
                same(
                    getattr(xp, name)(array > 0, **options), getattr(np, name)(wide > 0, **options)
                )
            if not x.size:
                continue
            for name in ("mean", "std", "var"):
                same(getattr(xp, name)(array, **options), getattr(np, name)(wide, **options), 2e-5)
            for name in ("min", "max"):
                same(getattr(xp, name)(array, **options), getattr(np, name)(x * 2, **options))
            if not isinstance(axis, tuple):
                for name in ("argmin", "argmax"):
                    same(getattr(xp, name)(array, **options), getattr(np, name)(wide, **options))
    for axis in range(len(shape)):
        same(xp.cumulative_sum(array, axis=axis), np.cumsum(wide, axis=axis), 2e-5)
        same(xp.sort(array, axis=axis), np.sort(x * 2, axis=axis))
        same(xp.argsort(array, axis=axis), np.argsort(wide, axis=axis, kind="stable"))


@pytest.mark.parametrize("extent", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 131])
def test_reductions_of_few_elements(
    tier: str, rng: np.random.Generator, extent: int, n: int
) -> None:
    x = floats(rng, (n, extent))
    array, wide = xp.asarray(x), x.astype(np.float64)
    same(xp.sum(array * array + 1.0, axis=1), (wide * wide + 1.0).sum(1), 1e-5)
    same(xp.prod(array, axis=1), wide.prod(1), 1e-5)
    down = np.ascontiguousarray(x.T)
    same(xp.sum(xp.asarray(down), axis=0), wide.sum(1), 1e-5)
    pairs = xp.reshape(array, (n, 1, extent)) - xp.reshape(array, (1, n, extent))
    same(xp.max(pairs, axis=(0, 2)), (x[:, None] - x[None]).max((0, 2)))
    same(xp.any(array > 4.0, axis=1), (x > 4.0).any(1))
    x[-1, -1] = np.nan
    x[0, 0] = -np.inf
    same(xp.min(xp.asarray(x), axis=1), x.min(1))
    narrow = rng.integers(-128, 128, (extent, n)).astype(np.int8)
    for name in ("sum", "prod"):
        result = getattr(xp, name)(xp.asarray(narrow), axis=0, dtype=xp.int8)
        same(result, getattr(np, name)(narrow, axis=0, dtype=np.int8))
    halves = x.astype(np.float16)
    halves[:] = np.nan_to_num(halves, neginf=2.0)
    result = xp.sum(xp.asarray(halves), axis=1)
    same(result, halves.astype(np.float64).sum(1).astype(np.float16), 2e-3)


def test_nan_and_infinity_in_reductions(tier: str) -> None:
    x = np.array([[1, np.nan, 3, -np.inf], [np.inf, 2, -0.0, 0.0]], np.float32)
    array = xp.asarray(x) + xp.asarray(np.zeros((2, 1), np.float32))
    for name in ("max", "min", "argmax", "argmin", "sum"):
        same(getattr(xp, name)(array, axis=1), getattr(np, name)(x, axis=1))
    same(xp.sort(array, axis=1), np.sort(x, axis=1))
    same(xp.argsort(array, axis=1), np.argsort(x, axis=1, kind="stable"))
    same(xp.argsort(array, axis=1, descending=True), [[2, 0, 3, 1], [0, 1, 2, 3]])
    result = xp.searchsorted(xp.asarray(np.sort(x[0])), xp.asarray(x.ravel()), side="right")
    same(result, np.searchsorted(np.sort(x[0]), x.ravel(), side="right"))


def test_views_of_computed_views(tier: str, rng: np.random.Generator) -> None:
    """A computed column lies in memory with gaps between its elements."""
    x = floats(rng, (5, 4))
    column = xp.asarray(x)[:, 1:2]
    same(column, x[:, 1:2])  # computed by reading it
    same(column[::-1], x[::-1, 1:2])
    same(xp.broadcast_to(column, (5, 3)) * 2, np.repeat(x[:, 1:2], 3, axis=1) * 2)
    same(xp.stack([column, column], axis=-1), np.stack([x[:, 1:2]] * 2, axis=-1))
    same(xp.concat([column, xp.asarray(x)], axis=1), np.concatenate([x[:, 1:2], x], axis=1))


def test_long_rows(tier: str, rng: np.random.Generator) -> None:
    x = floats(rng, (3, 70_001))
    x[1, 500] = np.nan
    array, wide = xp.asarray(x), x.astype(np.float64)
    same(xp.sum(array, axis=1), wide.sum(1), 1e-3)
    same(xp.sum(array[0]), wide[0].sum(), 1e-3)
    same(xp.argmax(array, axis=1), np.argmax(x, axis=1))
    same(xp.argmin(array[0]), np.argmin(x[0]))
    # numpy adds one by one in float32: 70,000 roundings of sums up to 1,000. One number is about 1.
    same(xp.cumulative_sum(array[0]), np.cumsum(wide[0]), 5e-2)
    same(xp.sort(array[:, :5000], axis=1), np.sort(x[:, :5000], axis=1))
    whole = rng.integers(-1000, 1000, 70_001).astype(np.int32)
    same(xp.sum(xp.asarray(whole)), whole.sum())
    same(xp.cumulative_sum(xp.asarray(whole)), np.cumsum(whole))
    same(xp.argsort(xp.asarray(whole[:4000])), np.argsort(whole[:4000], kind="stable"))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 9, 16, 17, 63, 64, 65, 511, 513, 4097])
def test_rows_of_any_length_are_sorted(tier: str, length: int) -> None:
    """A GPU takes one or three steps of a bitonic sort at a time, by what is left of a merge."""
    rng = np.random.default_rng()
    x = rng.integers(-3, 4, (3, length)).astype(np.float32)  # many are equal
    x[rng.random(x.shape) < 0.1] = np.nan
    array = xp.asarray(x)
    assert np.array_equal(np.asarray(xp.sort(array)), np.sort(x, kind="stable"), equal_nan=True)
    same(xp.argsort(array), np.argsort(x, kind="stable"))


def test_products(tier: str, rng: np.random.Generator) -> None:
    shapes = [
        ((5, 7), (7, 3)), ((7,), (7, 3)), ((5, 7), (7,)), ((7,), (7,)), ((1, 1), (1, 1)),
        ((2, 5, 7), (7, 3)), ((2, 5, 7), (2, 7, 3)), ((4, 1, 5, 7), (2, 7, 3)), ((5, 0), (0, 3)),
    ]  # fmt: skip
    for first, second in shapes:
        x, y = floats(rng, first), floats(rng, second)
        same(xp.asarray(x) @ xp.asarray(y), x.astype(np.float64) @ y.astype(np.float64), 1e-5)
        i, j = (x * 9).astype(np.int8), (y * 9).astype(np.int8)
        same(xp.asarray(i) @ xp.asarray(j), i @ j)
    x, y = floats(rng, (6, 8)), floats(rng, (8, 6))
    same(xp.asarray(x).T @ xp.asarray(y)[:, ::-1].T, x.T @ y[:, ::-1].T, 1e-5)
    same(
        xp.tensordot(xp.asarray(x), xp.asarray(y), axes=([0], [1])),
        np.tensordot(x, y, ([0], [1])),
        1e-5,
    )
    same(xp.vecdot(xp.asarray(x), xp.asarray(y.T)), (x * y.T).sum(-1), 1e-5)
    same(xp.linalg.outer(xp.asarray(x[0]), xp.asarray(y[0])), np.outer(x[0], y[0]), 1e-6)
    same(xp.linalg.trace(xp.asarray(x), offset=1), np.trace(x, 1), 1e-6)
    square = x @ x.T + 9 * np.eye(6, dtype=np.float32)
    same(xp.linalg.cholesky(xp.asarray(square)), np.linalg.cholesky(square), 1e-4)
    same(xp.linalg.solve(xp.asarray(square), xp.asarray(x)), np.linalg.solve(square, x), 1e-4)


PRODUCTS = [
    ((5,), (5, 7)),  # a vector by a matrix, and the other way around
    ((7, 5), (5,)),
    ((4, 7, 8), (8,)),
    ((2, 1, 9, 12), (3, 12, 8)),  # both broadcast
    ((3, 9, 13), (13, 20)),  # one y for all
    ((9, 12), (2, 12, 5)),
    ((17, 16), (16, 20)),
    ((33, 31), (31, 35)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((2, 4, 3), (2, 3, 0)),
]


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [((300_001,), (300_001,)), ((2, 2, 262_145), (2, 262_145, 3)), ((3, 131_072), (131_072, 1))],
)
def test_products_of_many_terms(
    tier: str, rng: np.random.Generator, x_shape: tuple[int, ...], y_shape: tuple[int, ...]
) -> None:
    """More than the rounds that lavapipe gives a loop."""
    x, y = (rng.uniform(0, 1, shape).astype(np.float32) for shape in (x_shape, y_shape))
    for convert in (xp.asarray, lambda each: xp.astype(xp.asarray(each), xp.float16)):
        a, b = convert(x / 512), convert(y)
        expected = np.asarray(a).astype(float) @ np.asarray(b).astype(float)
        result = np.asarray(xp.matmul(a, b)).astype(float)
        near = 1e-5 if a.dtype == xp.float32 else 6e-4
        np.testing.assert_allclose(result, expected, rtol=near)


@pytest.mark.parametrize("shapes", PRODUCTS, ids=str)
def test_products_of_views_odd_shapes_and_halves(
    tier: str, rng: np.random.Generator, shapes: Any
) -> None:
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    a, b = xp.asarray(x), xp.asarray(y)
    expected = x.astype(np.float64) @ y
    same(a @ b, expected, 1e-5)
    # The same numbers lying transposed and every other row of twice as many, without a copy.
    if y.ndim > 1:
        same(a @ xp.asarray(np.ascontiguousarray(y.swapaxes(-1, -2))).mT, expected, 1e-5)
    same(xp.asarray(np.repeat(x, 2, axis=0))[::2] @ b, expected, 1e-5)
    halves = (x.astype(np.float16), y.astype(np.float16))
    result = xp.asarray(halves[0]) @ xp.asarray(halves[1])
    assert result.dtype == xp.float16
    same(result, halves[0].astype(np.float64) @ halves[1].astype(np.float64), 4e-3)


def test_indexing_and_joining(tier: str, rng: np.random.Generator) -> None:
    x = floats(rng, (5, 6, 7))
    array = xp.asarray(x)
    some = np.array([4, 0, -1], np.int32)
    computed = xp.asarray(some) + 0
    for index in (xp.asarray(some), computed):
        same(array[index], x[some])
        same(array[:, index], x[:, some])
        same(array[index, :, index], x[some, :, some])
        same(array[1, index], x[1, some])
        same(xp.take(array, index, axis=2), np.take(x, some, axis=2))
    same(array[array > 0.5], x[x > 0.5])
    same(array[xp.asarray([True, False, True, True, False])], x[[True, False, True, True, False]])
    same(xp.concat([array, array[:1] * 2], axis=0), np.concatenate([x, x[:1] * 2]))
    same(xp.concat([array[..., i : i + 1] for i in range(7)], axis=-1), x)
    same(xp.stack([array[0], array[1]], axis=-1), np.stack([x[0], x[1]], axis=-1))
    same(xp.roll(array, (2, -1), axis=(0, 2)), np.roll(x, (2, -1), (0, 2)))
    same(xp.tile(array, (2, 1, 1, 3)), np.tile(x, (2, 1, 1, 3)))
    same(xp.repeat(array, 2, axis=1), np.repeat(x, 2, axis=1))
    same(xp.tril(array, k=-1), np.tril(x, -1))
    same(xp.triu(array, k=2**40), np.triu(x, 99))
    same(xp.eye(2, k=2**40), np.eye(2, k=99))
    same(xp.triu(array, k=2), np.triu(x, 2))
    order = xp.argsort(array, axis=1)
    same(xp.take_along_axis(array, order, axis=1), np.sort(x, axis=1))
    result = xp.unique_all(xp.asarray(np.array([3, 1, 3, 2], np.int16)))
    same(result.values, [1, 2, 3])
    same(result.counts, [1, 1, 2])


def test_putting_changes_this_array_only(tier: str, rng: np.random.Generator) -> None:
    x = floats(rng, (4, 5))
    array = xp.asarray(x)
    row = array[1]
    x = x.copy()
    before = x[1].copy()
    for key, value in [
        ((1, slice(None)), 7.0),
        ((slice(None), 2), x[:, 0]),
        ((slice(0, 3, 2),), 2),
    ]:
        x[key] = value
        array[key] = xp.asarray(value) if isinstance(value, np.ndarray) else value
    array[array > 5] = 0
    x[x > 5] = 0
    same(array, x)
    same(row, before)


def test_dtypes_and_errors(tier: str) -> None:
    assert (xp.asarray([1], dtype="int8") + xp.asarray([1], dtype="uint8")).dtype == np.int16
    assert (xp.asarray([1], dtype="int8") + 1.5).dtype == np.float32
    assert xp.sum(xp.asarray([1], dtype="uint8")).dtype == np.uint32
    same(xp.asarray([300, -1], dtype="int32").__add__(0).__and__(255), [44, 255])
    same(xp.astype(xp.asarray([1e10, -1e10, np.nan]), "int32"), [2**31 - 1, -(2**31), 0])
    with pytest.raises(DTypeError, match="nearest is int32"):
        xp.zeros(3, dtype="int64")
    with pytest.raises(AttributeError, match="nearest is float32"):
        _ = xp.float64  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="int32 and uint32"):
        _ = xp.zeros(3, dtype="int32") + xp.zeros(3, dtype="uint32")
    with pytest.raises(OverflowError, match="300"):
        _ = xp.zeros(3, dtype="uint8") + 300
    with pytest.raises(ShapeError, match=r"\(3,\) \(4,\)"):
        _ = xp.zeros(3) + xp.zeros(4)
    with pytest.raises(ArrayIndexError, match="3 for axis 0"):
        _ = xp.zeros(3)[3]
    with pytest.raises(ArrayIndexError, match="axis 2"):
        xp.sum(xp.zeros(3), axis=2)
    with pytest.raises(ValueError, match="one element"):
        bool(xp.zeros(3))


def test_random_numbers_are_the_same_everywhere(tier: str) -> None:
    zero = build.number(0, np.dtype("uint32"), xp.default_device())
    words = build.row("philox", [build.iota((4,), dtype="uint32"), zero, zero])
    # The first known answer of Random123 for philox4x32-10: counter and key are 0.
    same(xp.Array(words), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    rng = xp.random.Generator(seed=2**40 + 3)
    same(rng.bits(5), [1756512236, 4048313933, 166404799, 3652865855, 1688351679])
    result = np.asarray(rng.normal(20_000))
    assert abs(result.mean()) < 0.04
    assert abs(result.std() - 1) < 0.03
    whole = np.asarray(rng.integers(-3, 4, 7000))
    assert set(whole.tolist()) == set(range(-3, 4))


def test_an_axis_of_a_mask_has_its_size_or_none(tier: str) -> None:
    x = xp.reshape(xp.arange(6), (2, 3))
    for shape, expected in [((0,), (0, 3)), ((2, 0), (0,)), ((0, 0), (0,)), ((0, 3), (0,))]:
        mask = xp.zeros(shape, dtype="bool")
        assert x[mask].shape == expected
        before = np.asarray(x)
        x[mask] = 7
        same(x, before)
    for shape in [(1,), (2, 1), (3, 3), (2, 3, 0)]:
        with pytest.raises(IndexError):
            x[xp.zeros(shape, dtype="bool")]
