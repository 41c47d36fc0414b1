"""The KV cache and the tokens on the WebAssembly tier against float64, between poisoned buffers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.kernels_native import NativeKernels
from bascule.backend.wasm.language import LanguageFunctions
from bascule.base.arrays import Array
from bascule.models.decoder.config import DecoderConfig
from bascule.program.ops.sampling import NOT_A_TOKEN
from bascule.tasks.kv_cache import rotary_angles
from tests.backend.guarded import GuardedKernels, NumpyOps
from tests.shaders.test_cached_attention import CASES

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["f32", "f16"])
# An f16 may be off by half of its last bit.
HALF = 2.0**-11


@pytest.fixture
def guarded(kernels: NativeKernels) -> Iterator[GuardedKernels]:
    result = GuardedKernels(kernels)
    yield result
    result.check()


@pytest.fixture
def ops(guarded: GuardedKernels) -> NumpyOps:
    return NumpyOps(LanguageFunctions(guarded))


def state(guarded: GuardedKernels, values: Array) -> Array:
    """A copy that kernels may write."""
    names = {"float32": "f32", "uint32": "u32", "float16": "f16"}
    result = np.asarray(guarded.empty(values.shape, names[values.dtype.name]))
    result[...] = values
    return result


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def angles(rng: np.random.Generator, size: int, rows: int = 30) -> Array:
    turns = rng.uniform(-np.pi, np.pi, (256 + rows, size // 2))
    return np.concatenate((np.cos(turns), np.sin(turns)), axis=1).astype(np.float32)


@both_dtypes
@pytest.mark.parametrize("pairs", ["adjacent", "halves"])
@pytest.mark.parametrize("position", [0, 1, 255, 256, 257, 5000])
def test_rope_append(
    position: int,
    pairs: str,
    dtype: type,
    guarded: GuardedKernels,
    ops: NumpyOps,
    rng: np.random.Generator,
) -> None:
    """The last of more tokens than slots stay; what nobody appended is left alone."""
    for heads, kv_heads, size, tokens, slots in (
        (9, 3, 64, 1, 16),
        (4, 4, 4, 7, 7),
        (2, 1, 20, 3, 5),
        (1, 1, 12, 13, 11),
    ):
        shape = {"heads": heads, "kv_heads": kv_heads, "size": size, "pairs": pairs}
        qkv = normal(rng, tokens, (heads + 2 * kv_heads) * size)
        cache = state(guarded, normal(rng, slots, 2 * kv_heads * size).astype(dtype))
        wide, table = cache.astype(np.float64), angles(rng, size)
        at = np.array([position], np.uint32)
        result = ops.rope_append(qkv, cache, table, at, **shape)
        expected = FUNCTIONS["rope_append"](
            qkv.astype(np.float64), wide, table.astype(np.float64), at, **shape
        )
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-6)
        near = HALF if dtype is np.float16 else 2e-6
        np.testing.assert_allclose(cache, wide, rtol=near + 2e-6, atol=2e-6)


def test_halves_are_rounded_as_numpy_rounds_them(
    guarded: GuardedKernels, ops: NumpyOps, rng: np.random.Generator
) -> None:
    """Values go into the cache unturned: every kind of float32 comes out as numpy's float16."""
    special = [0, -0.0, 1e-8, 2**-25, 2**-24, 3 * 2**-25, 6.1e-5, 65504, 65519, 65520, 1e6]
    special += [2049, 2051, -65520, np.inf, -np.inf, np.nan]
    some = np.concatenate((special, rng.standard_normal(200) * 10.0 ** rng.integers(-9, 5, 200)))
    size = len(some) - len(some) % 4
    values = some[:size].astype(np.float32)
    cache = np.asarray(guarded.empty((1, 2 * size), "f16"))
    qkv, zero = np.concatenate((np.zeros(2 * size), values))[None], np.zeros(1, np.uint32)
    shape = {"heads": 1, "kv_heads": 1, "size": size, "pairs": "halves"}
    ops.rope_append(qkv.astype(np.float32), cache, angles(rng, size), zero, **shape)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    result, nan = cache[0, size:], np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(result), nan)
    np.testing.assert_array_equal(result[~nan].view(np.uint16), expected[~nan].view(np.uint16))


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cached_attention(
    case: tuple[int, ...], dtype: type, ops: NumpyOps, rng: np.random.Generator
) -> None:
    tokens, slots, position, heads, kv_heads, size, window = case
    shape = {"heads": heads, "kv_heads": kv_heads, "size": size, "window": window}
    cache = normal(rng, slots, 2 * kv_heads * size).astype(dtype)
    if position + tokens < slots:
        cache[position + tokens :] = np.nan  # what nobody has written is never read
    for factor in (1, 15):  # scores of some hundreds overflow a plain exp
        q, at = normal(rng, tokens, heads * size) * factor, np.array([position], np.uint32)
        wide = cache.astype(np.float64)
        for scores in ({}, {"scale": 0.3, "softcap": 5.0}):
            result = ops.cached_attention(q, cache, at, **shape, **scores)
            exact = q.astype(np.float64)
            expected = FUNCTIONS["cached_attention"](exact, wide, at, **shape, **scores)
            np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * factor)


@both_dtypes
@pytest.mark.parametrize("tokens", [1, 3, 4, 21])
def test_attention_loses_no_nan(
    tokens: int, dtype: type, ops: NumpyOps, rng: np.random.Generator
) -> None:
    shape = {"heads": 6, "kv_heads": 2, "size": 8, "window": 0}
    cache, at = normal(rng, 64, 32).astype(dtype), np.array([20], np.uint32)
    cache[7, 3] = np.nan  # a key of the first group
    result = ops.cached_attention(normal(rng, tokens, 48), cache, at, **shape)
    assert np.isnan(result[:, :24]).all()
    assert np.isfinite(result[:, 24:]).all()


def test_the_angles_of_a_model(ops: NumpyOps, guarded: GuardedKernels) -> None:
    """A late position out of two rows of the model's own table, against its sine in float64."""
    sizes = {"vocabulary": 9, "hidden": 8, "layers": 1, "heads": 1, "kv_heads": 1, "size": 8}
    config = DecoderConfig(
        **sizes, inner=8, context=64, theta=10000.0, eps=1e-5, types={}, pairs="adjacent"
    )
    table, position = np.asarray(rotary_angles(config)), 77_777
    qkv = np.tile(np.array([1, 0], np.float32), 12)[None]
    cache = np.asarray(guarded.empty((4, 16)))
    shape = {"heads": 1, "kv_heads": 1, "size": 8, "pairs": "adjacent"}
    result = ops.rope_append(qkv, cache, table, np.array([position], np.uint32), **shape)
    turns = position * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    expected = np.stack((np.cos(turns), np.sin(turns)), axis=1).reshape(1, 8)
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 64, 1001])
def test_argmax_token(
    vocabulary: int,
    guarded: GuardedKernels,
    ops: NumpyOps,
    rng: np.random.Generator,
) -> None:
    """The first of equals; no token for NaN and infinities."""
    plain = normal(rng, 1, vocabulary)
    rounded, holed = np.round(plain), plain.copy()
    holed[0, rng.integers(0, vocabulary, 3)] = np.nan
    low, high, last = np.full_like(plain, -np.inf), plain.copy(), plain.copy()
    high[0, vocabulary // 2 :] = np.inf
    last[0, -1] = np.nan
    masked = np.where(np.arange(vocabulary) == vocabulary // 3, plain, -np.inf).astype(np.float32)
    broken = (holed, low, high, last, np.full_like(plain, np.nan))
    for logits in (plain, rounded, masked, *broken):
        tokens = state(guarded, rng.integers(0, 9, 7).astype(np.uint32))
        position = state(guarded, np.array([rng.integers(0, 20)], np.uint32))
        theirs, there = tokens.copy(), position.copy()
        result = ops.argmax_token(logits, tokens, position)
        np.testing.assert_array_equal(result, FUNCTIONS["argmax_token"](logits, theirs, there))
        assert (result[0] == NOT_A_TOKEN) == any(logits is each for each in broken)
        np.testing.assert_array_equal(tokens, theirs)
        np.testing.assert_array_equal(position, there)


@pytest.mark.parametrize("vocabulary", [1, 5, 64, 1001])
def test_allowed_token(
    vocabulary: int,
    guarded: GuardedKernels,
    ops: NumpyOps,
    rng: np.random.Generator,
) -> None:
    """Each rule, kinds at random; no token where a logit is not finite or none is allowed."""
    times = vocabulary * 3 // 4
    broken = normal(rng, 1, vocabulary)
    broken[0, -1] = -np.inf
    none = np.full(vocabulary, 2, np.uint32)
    kinds = rng.integers(0, 3, vocabulary).astype(np.uint32)
    kinds[[0, -1]] = 0
    results: list[bool] = []
    for logits in (normal(rng, 1, vocabulary), np.round(normal(rng, 1, vocabulary)), broken):
        for rules in (
            (0, 0, 2**32 - 1, 0),
            (0, times, times, 1),
            (times, times, times + 9, 1),
            (times // 2, times + 2, 2**32 - 1, 0),
        ):
            for each in (kinds, none):
                tokens = state(guarded, rng.integers(0, 9, 7).astype(np.uint32))
                position = state(guarded, np.array([rng.integers(0, 20)], np.uint32))
                theirs, there = tokens.copy(), position.copy()
                words = np.array(rules, np.uint32)
                y = ops.allowed_token(logits, tokens, position, each, words, times=times)
                want = FUNCTIONS["allowed_token"](logits, theirs, there, each, words, times=times)
                assert y[0] == want[0]
                np.testing.assert_allclose(y[1], want[1], rtol=1e-5)
                assert not (y[0] >= 0 and (each is none or logits is broken))
                np.testing.assert_array_equal(tokens, theirs)
                np.testing.assert_array_equal(position, there)
                results.append(bool(y[0] >= 0))
    assert any(results)
