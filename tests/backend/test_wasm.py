"""The ops of the WebAssembly tier against float64, at the edges of the kernels' tiles.

What a kernel shall write is NaN before, and lies between canaries that it must leave alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.functions import WasmFunctions
from bascule.backend.wasm.kernels_native import NativeKernels, _compiled, open_native
from bascule.base.arrays import Array
from bascule.program.ops import ACTIVATIONS
from tests.backend.guarded import GuardedKernels, NumpyOps


@pytest.fixture
def ops(kernels: NativeKernels) -> Iterator[NumpyOps]:
    guarded = GuardedKernels(kernels)
    yield NumpyOps(WasmFunctions(guarded))
    guarded.check()


def agree(found: Array, expected: Array, tolerance: float) -> None:
    """Within `tolerance`, relative to the largest of the values."""
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def both(ops: NumpyOps, op: str, *operands: Array | None, **attributes: Any) -> Any:
    """The op as the tier and as float64 compute it."""
    narrow = [x.astype(np.float32) if x is not None and x.dtype != np.uint32 else x
              for x in operands]  # fmt: skip
    wide = [x.astype(np.float64) if x is not None and x.dtype == np.float32 else x
            for x in narrow]  # fmt: skip
    expected = FUNCTIONS[op](*wide, **attributes)
    return getattr(ops, op)(*narrow, **attributes), expected


def rounding(terms: int) -> float:
    """Of a sum of products of standard normals, relative to its largest value."""
    return 2e-6 + 1.2e-7 * terms**0.5


ROWS = [1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 67, 131]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("columns", "inner"), [(1, 1), (3, 5), (8, 4), (9, 7), (45, 33), (64, 384)]
)
def test_linear(
    rows: int, columns: int, inner: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    x, weight = rng.standard_normal((rows, inner)), rng.standard_normal((columns, inner))
    result, expected = both(ops, "linear", x, weight)
    agree(result, expected, rounding(inner))


@pytest.mark.parametrize("rows", [1, 3, 6, 70])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_what_follows_a_linear_layer(
    rows: int,
    activation: str,
    with_bias: bool,
    with_residual: bool,
    ops: NumpyOps,
    rng: np.random.Generator,
) -> None:
    x, weight = rng.standard_normal((2, rows, 37)), rng.standard_normal((21, 37))
    bias = rng.standard_normal(21) if with_bias else None
    residual = rng.standard_normal((2, rows, 21)) if with_residual else None
    result, expected = both(ops, "linear", x, weight, bias, residual, activation=activation)
    before = float(np.abs(x @ weight.T).max())  # an activation passes on the error of its input
    agree(result, expected, rounding(37) * max(1.0, before))


@pytest.mark.parametrize("columns", [1, 4, 6, 39])
@pytest.mark.parametrize("rows", [1, 9])
def test_gated_linear(rows: int, columns: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((rows, 30)), rng.standard_normal((2 * columns, 30))
    result, expected = both(ops, "gated_linear", x, weight, activation="silu")
    agree(result, expected, 2 * rounding(30))


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 31, 384])
@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3)])
def test_norms(
    shape: tuple[int, ...], columns: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    x, residual = rng.standard_normal((2, *shape, columns)) * 3 + 1
    weight, bias = rng.standard_normal((2, columns))
    for eps in (1e-5, 0.7):
        for operands in ((x, weight, bias), (x, weight, bias, residual)):
            result, expected = both(ops, "layer_norm", *operands, eps=eps)
            agree(result, expected, 4e-6)
        result, expected = both(ops, "rms_norm", x, weight, eps=eps)
        agree(result, expected, 2e-6)
        runs = rng.standard_normal((*shape, 3 * columns))
        for plus in (0.0, 1.0):
            result, expected = both(ops, "rms_norm", runs, weight, eps=eps, plus=plus)
            agree(result, expected, 2e-6)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 131])
def test_scale_and_softcap(n: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, n)) * 40
    result, expected = both(ops, "scale", x, by=5.656854)
    agree(result, expected, 2e-7)
    result, expected = both(ops, "softcap", x, cap=30.0)
    agree(result, expected, 1e-6)


@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 9, 31, 32, 33, 70])
@pytest.mark.parametrize(("heads", "size"), [(1, 1), (3, 5), (2, 8), (2, 32), (1, 44)])
def test_attention(
    tokens: int, heads: int, size: int, ops: NumpyOps, rng: np.random.Generator
) -> None:
    qkv = rng.standard_normal((4, tokens, 3 * heads * size)) * 2
    # None counts as one; more than there are, as all.
    lengths = np.array([tokens, 0, (tokens + 1) // 2, tokens + 9], np.uint32)
    result, expected = both(ops, "attention", qkv, lengths, heads=heads)
    agree(result, expected, 3e-6)


@pytest.mark.parametrize("keys", [1, 3, 8, 33, 70])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(1, 1, 1), (3, 3, 5), (4, 2, 8), (2, 1, 44)]
)
@pytest.mark.parametrize(("causal", "window"), [(False, 0), (True, 0), (False, 7), (True, 7)])
def test_dot_product_attention(
    keys: int,
    heads: int,
    kv_heads: int,
    size: int,
    causal: bool,
    window: int,
    ops: NumpyOps,
    rng: np.random.Generator,
) -> None:
    """As many queries as keys, fewer, and more; with lengths, with a bias, and with neither."""
    lengths = np.array([keys, 0, (keys + 1) // 2, keys + 9], np.uint32)
    rules = {"heads": heads, "kv_heads": kv_heads, "causal": causal, "window": window}
    for queries in (keys, 1, keys + 2):
        q = rng.standard_normal((4, queries, heads * size)) * 2
        k, v = rng.standard_normal((2, 4, keys, kv_heads * size)) * 2
        bias = rng.standard_normal((heads, queries, keys))
        for more, scale in (((), 0.0), ((lengths, bias), 0.3), ((None, bias), 0.0)):
            result, expected = both(
                ops, "dot_product_attention", q, k, v, *more, scale=scale, **rules
            )
            agree(result, expected, 4e-6)


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 6), (2, 64)])
def test_rope(heads: int, size: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    """Positions past the table take its last row."""
    x, angles = rng.standard_normal((2, 9, heads * size)), rng.standard_normal((7, size))
    result, expected = both(ops, "rope", x, angles, size=size)
    agree(result, expected, 2e-6)


@pytest.mark.parametrize("kind", ["mean", "cls"])
@pytest.mark.parametrize("columns", [1, 3, 4, 9, 384])
@pytest.mark.parametrize("tokens", [1, 2, 7])
def test_pool(
    tokens: int, columns: int, kind: str, ops: NumpyOps, rng: np.random.Generator
) -> None:
    """Padding is never read: it is NaN."""
    x = rng.standard_normal((4, tokens, columns))
    lengths = np.array([tokens, 0, (tokens + 1) // 2, 1], np.uint32)
    for row, length in zip(x, np.maximum(lengths, 1), strict=True):
        row[length:] = np.nan
    result, expected = both(ops, "pool", x, lengths, kind=kind)
    agree(result, expected, 2e-6)


@pytest.mark.parametrize("columns", [1, 3, 4, 9, 384])
def test_l2_normalise(columns: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, columns))
    x[1], x[2], x[3, 0] = 0, 1e-9, np.nan
    for eps in (1e-12, 1e-3):
        result, expected = both(ops, "l2_normalise", x, eps=eps)
        np.testing.assert_allclose(result, expected, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_keep_their_stated_error(
    kind: str, ops: NumpyOps, rng: np.random.Generator
) -> None:
    far = np.array([-1e30, -3e4, -100, -88, -5.6, -0.0, 0, 5.6, 88, 100, 3e4, 1e30])
    x = np.concatenate((np.linspace(-12, 12, 40_001), rng.standard_normal(1001) * 1e-3, far))
    result, expected = both(ops, "activate", x, kind=kind)
    error = np.abs(result - expected) / np.maximum(1, np.abs(x))
    assert error.max() < 1e-6


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_activations_of_a_few(n: int, kind: str, ops: NumpyOps, rng: np.random.Generator) -> None:
    result, expected = both(ops, "activate", rng.standard_normal(n), kind=kind)
    agree(result, expected, 1e-6)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_nan_is_never_lost(kind: str, ops: NumpyOps) -> None:
    x = np.zeros((5, 9), np.float32)
    x[2, 3] = x[4, 8] = np.nan
    np.testing.assert_array_equal(np.isnan(ops.activate(x, kind=kind)), np.isnan(x))
    eye = np.eye(9, dtype=np.float32)
    result = ops.linear(x, eye, activation=kind)
    assert np.isnan(result[[2, 4]]).all()
    assert np.isfinite(result[[0, 1, 3]]).all()


@pytest.mark.parametrize("n", [1, 3, 4, 5, 1023])
def test_add_and_multiply(n: int, ops: NumpyOps, rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 3, n))
    for op, operands in product(("add", "multiply"), ((a, b), (a, b[0]))):
        result, expected = both(ops, op, *operands)
        agree(result, expected, 1e-6)


def test_arrays_from_anywhere_and_of_any_strides(ops: NumpyOps, rng: np.random.Generator) -> None:
    x = rng.standard_normal((12, 10)).astype(np.float32)
    weight = rng.standard_normal((10, 12)).astype(np.float32)
    result = ops.linear(x.T[:, ::2], weight[:, ::2])
    np.testing.assert_allclose(result, x.T[:, ::2] @ weight[:, ::2].T, rtol=1e-5, atol=1e-5)


def test_memory_is_given_back(kernels: NativeKernels) -> None:
    held = [np.asarray(kernels.empty((1 << 20,))) for _ in range(3)]
    addresses = {a.ctypes.data for a in held}
    view = held.pop()[5:]
    held.clear()
    again = [np.asarray(kernels.empty((1 << 20,))) for _ in range(2)]
    assert {a.ctypes.data for a in again} == addresses - {view.ctypes.data - 20}
    view[:] = 3
    for other in again:
        other[:] = 4
    assert (view == 3).all()


def test_more_than_there_can_be_is_an_error_that_leaves_no_trace(kernels: NativeKernels) -> None:
    with pytest.raises(MemoryError, match="4 GiB"):
        kernels.empty((1 << 30,))
    assert kernels.empty((5,)).shape == (5,)


def test_stores_share_compiled_code_and_no_memory() -> None:
    opened = [open_native() for _ in range(3)]
    tensors = [kernels.empty((4,)) for kernels in opened]
    for number, tensor in enumerate(tensors):
        tensor.write(np.full(4, number, np.float32))
    for number, tensor in enumerate(tensors):
        assert (np.asarray(tensor) == number).all()
    compiled = _compiled.cache_info()
    assert compiled.misses <= 2  # with and without relaxed SIMD
    assert compiled.hits >= 2
