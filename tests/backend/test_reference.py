"""The op definitions themselves, against values known from elsewhere and simple properties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bascule.backend import reference
from bascule.backend.cpu import ReferenceBackend
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import ACTIVATIONS, OPS


def test_every_op_has_a_definition() -> None:
    assert reference.FUNCTIONS.keys() == OPS.keys()


def test_erf_fit_stays_within_its_stated_error() -> None:
    x = np.linspace(-6, 6, 4001)
    exact = np.array([math.erf(v) for v in x])
    assert np.abs(reference._erf_fit(x.astype(np.float32)) - exact).max() < 2e-7


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_agree_in_float32_and_float64(kind: str) -> None:
    x = np.random.default_rng(3).standard_normal(999) * 4
    wide = reference.activate(x, kind=kind)
    narrow = reference.activate(x.astype(np.float32), kind=kind)
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, wide, rtol=2e-6, atol=2e-6)


def test_known_values_of_gelu_and_silu() -> None:
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        reference.activate(x, kind="gelu"), [-0.15865525393, 0.0, 1.95449973610], rtol=1e-9
    )
    np.testing.assert_allclose(
        reference.activate(x, kind="silu"), [-0.26894142137, 0.0, 1.76159415596], rtol=1e-9
    )


def test_attention_ignores_what_lies_past_the_length() -> None:
    rng = np.random.default_rng(5)
    qkv = rng.standard_normal((2, 7, 24))
    lengths = np.array([4, 7])
    before = reference.attention(qkv, lengths, heads=2)
    qkv[0, 4:, 8:] = 1e9
    after = reference.attention(qkv, lengths, heads=2)
    np.testing.assert_array_equal(before[0, :4], after[0, :4])
    assert np.isfinite(reference.attention(qkv, np.array([0, 1]), heads=2)).all()


def test_attention_equals_the_plain_formula_for_one_head() -> None:
    rng = np.random.default_rng(6)
    q, k, v = rng.standard_normal((3, 5, 4))
    scores = np.exp(q @ k.T / 2)
    expected = (scores / scores.sum(axis=1, keepdims=True)) @ v
    packed = np.concatenate([q, k, v], axis=1)[None]
    np.testing.assert_allclose(reference.attention(packed, np.array([5]), heads=1)[0], expected)


def test_ids_past_the_table_read_its_last_row() -> None:
    table = np.arange(6.0).reshape(3, 2)
    found = reference.embedding(np.array([[0, 99]]), table, None, None)
    np.testing.assert_array_equal(found, [[[0, 1], [4, 5]]])


async def test_a_missing_or_misshapen_input_is_told() -> None:
    graph = Graph("g")
    graph.output(graph.call("activate", graph.input("x", (2, 3)), kind="relu"))
    backend = ReferenceBackend()
    executable = await backend.prepare(freeze(graph), backend.store(()))
    with pytest.raises(InputError, match="nothing"):
        await executable.run({}, {})
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        await executable.run({}, {"x": np.zeros((3, 2), np.float32)})
