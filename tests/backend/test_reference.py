"""The op definitions themselves, against values known from elsewhere and simple properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import ACTIVATIONS, OPS


def test_every_op_has_a_definition() -> None:
    assert FUNCTIONS.keys() == OPS.keys()


def gelu_exact(x: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * math.erfc(-v * 0.5**0.5) for v in x.astype(float).ravel()])


def test_gelu_in_float32_stays_within_its_stated_error() -> None:
    near = np.logspace(-30, 0, 301)
    x = np.concatenate([np.linspace(-30, 30, 60_001), near, -near]).astype(np.float32)
    exact = gelu_exact(x)
    error = np.abs(FUNCTIONS["activate"](x, kind="gelu") - exact)
    # Two steps of float32 at the size of x, and relative to the result where that is small.
    assert (error <= 2 * 2.0**-24 * np.maximum(1, np.abs(x))).all()
    small = np.abs(x) < 0.5
    assert (error[small] <= 4e-7 * np.abs(exact[small])).all()


def test_gelu_of_what_is_no_number() -> None:
    x = np.array([math.nan, math.inf, -math.inf, 3e38, -3e38], np.float32)
    result = FUNCTIONS["activate"](x, kind="gelu")
    np.testing.assert_allclose(result, [math.nan, math.inf, 0, 3e38, 0], atol=1e-30)


@pytest.mark.parametrize("n", [0, 1, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_gelu_by_blocks_in_place_and_of_views(n: int) -> None:
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32) * 3
    kept = x.copy()
    expected = gelu_exact(x).reshape(x.shape)
    np.testing.assert_allclose(FUNCTIONS["activate"](x, kind="gelu"), expected, atol=1e-6)
    np.testing.assert_allclose(FUNCTIONS["activate"](x.T, kind="gelu"), expected.T, atol=1e-6)
    np.testing.assert_array_equal(x, kept)
    assert FUNCTIONS["activate"](x, kind="gelu", out=x) is x
    np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_products_leave_their_operands_alone(activation: str) -> None:
    rng = np.random.default_rng(9)
    shapes = [(3, 8), (6, 8), (6,), (3, 6)]
    operands = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    kept = [array.copy() for array in operands]
    FUNCTIONS["linear"](*operands, activation=activation)
    FUNCTIONS["gated_linear"](*operands[:2], activation=activation)
    for array, before in zip(operands, kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_agree_in_float32_and_float64(kind: str) -> None:
    x = np.random.default_rng(3).standard_normal(999) * 4
    wide = FUNCTIONS["activate"](x, kind=kind)
    narrow = FUNCTIONS["activate"](x.astype(np.float32), kind=kind)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=2e-6, atol=2e-6)


def test_known_values_of_gelu_and_silu() -> None:
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        FUNCTIONS["activate"](x, kind="gelu"), [-0.15865525393, 0.0, 1.95449973610], rtol=1e-9
    )
    np.testing.assert_allclose(
        FUNCTIONS["activate"](x, kind="silu"), [-0.26894142137, 0.0, 1.76159415596], rtol=1e-9
    )
    tanh = [v * (1 + np.tanh((2 / np.pi) ** 0.5 * (v + 0.044715 * v**3))) / 2 for v in x]
    np.testing.assert_allclose(FUNCTIONS["activate"](x, kind="gelu_tanh"), tanh, rtol=1e-12)


def test_attention_ignores_what_lies_past_the_length() -> None:
    rng = np.random.default_rng(5)
    qkv = rng.standard_normal((2, 7, 24))
    lengths = np.array([4, 7])
    before = FUNCTIONS["attention"](qkv, lengths, heads=2)
    qkv[0, 4:, 8:] = 1e9
    after = FUNCTIONS["attention"](qkv, lengths, heads=2)
    np.testing.assert_array_equal(before[0, :4], after[0, :4])
    assert np.isfinite(FUNCTIONS["attention"](qkv, np.array([0, 1]), heads=2)).all()


def test_attention_equals_the_plain_formula_for_one_head() -> None:
    rng = np.random.default_rng(6)
    q, k, v = rng.standard_normal((3, 5, 4))
    scores = np.exp(q @ k.T / 2)
    expected = (scores / scores.sum(axis=1, keepdims=True)) @ v
    packed = np.concatenate([q, k, v], axis=1)[None]
    np.testing.assert_allclose(FUNCTIONS["attention"](packed, np.array([5]), heads=1)[0], expected)


def test_ids_past_the_table_read_its_last_row() -> None:
    table = np.arange(6.0).reshape(3, 2)
    result = FUNCTIONS["embedding"](np.array([[0, 99]]), table, None, None)
    np.testing.assert_array_equal(result, [[[0, 1], [4, 5]]])


async def test_a_missing_or_misshapen_input_is_told() -> None:
    graph = Graph("g")
    graph.output(graph.call("activate", graph.input("x", (2, 3)), kind="relu"))
    backend = ReferenceBackend()
    executable = await backend.prepare(freeze(graph), backend.store(()))
    with pytest.raises(InputError, match="nothing"):
        await executable.run({}, {})
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        await executable.run({}, {"x": np.zeros((3, 2), np.float32)})
