"""Chains of elementwise operations on the host: the numbers of whole arrays, in less memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bascule.array as xp
from bascule.array.blocks import BLOCK, Chain, chains
from bascule.array.graph import Node, ordered

SHAPES = [
    (BLOCK,),
    (BLOCK + 1,),
    (3 * BLOCK - 5,),
    (3, BLOCK + 7),
    (257, 129, 9),
    (BLOCK // 8, 1, 31),
    (1, 2 * BLOCK),
    (2 * BLOCK, 1),
]


@pytest.fixture(params=["wasm", "cpu"])
def host(request: pytest.FixtureRequest) -> str:
    xp.set_default_device(request.param)
    return request.param


def chain(xp: Any, x: Any, y: Any, row: Any) -> Any:
    """Floats, integers and truth on the way; `x` read twice, and a value that two read."""
    inner = (x * 2 - y) / (abs(x) + 0.5)
    chosen = xp.where(inner > 0, inner * inner, row)
    return xp.sqrt(abs(chosen)) + xp.asarray(inner > 1, dtype=xp.float32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_blocks_give_the_numbers_of_whole_arrays(
    host: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x, y = rng.standard_normal((2, *shape)).astype(np.float32)
    row = rng.standard_normal(shape[-1]).astype(np.float32)
    result = await chain(xp, xp.asarray(x), xp.asarray(y), xp.asarray(row)).numpy()
    assert np.array_equal(result, chain(np, x, y, row))


def _transposed(x: Any) -> Any:
    return x.T


def _backwards(x: Any) -> Any:
    return x[::-1, ::2]


def _repeated(x: Any) -> Any:
    return x[:1, :] + x * 0


@pytest.mark.parametrize("view", [_transposed, _backwards, _repeated])
async def test_views_are_read_as_they_lie(
    host: str, view: Callable[[Any], Any], rng: np.random.Generator
) -> None:
    x = rng.standard_normal((1300, 802)).astype(np.float32)
    seen, expected = view(xp.asarray(x)), view(x)
    assert np.array_equal(await (seen * seen - seen).numpy(), expected * expected - expected)


async def test_a_chain_holds_its_result_and_no_other_array(host: str) -> None:
    x = xp.asarray(np.linspace(0, 1, 12_000_000, dtype=np.float32))
    y = x
    for _ in range(8):
        y = y * 1.5 + 0.25
    tracemalloc.start()
    await xp.eval(y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * y.size * 4  # one whole operation after the other: 2.0


def node_of(x: Any) -> Node:
    return x._node


def chains_of(x: Any) -> list[Chain]:
    return chains(ordered([node_of(x)]), {id(node_of(x))})


async def test_what_a_user_holds_is_computed_once_and_kept(host: str) -> None:
    x = xp.asarray(np.arange(2 * BLOCK, dtype=np.float32))
    middle = x * 2 + 1
    end = middle * middle - 1
    lengths = [len(each.nodes) for each in chains_of(end)]
    assert lengths == [2, 2]
    doubled = 2 * np.arange(2 * BLOCK, dtype=np.float32) + 1
    assert np.array_equal(await end.numpy(), doubled * doubled - 1)
    assert node_of(middle).is_known
    assert np.array_equal(await middle.numpy(), doubled)


async def test_small_arrays_and_other_operations_stand_alone(host: str) -> None:
    x = xp.asarray(np.ones((4, BLOCK), np.float32))
    small = xp.sum(x * 2 + 1, axis=1)
    end = (small + 1) * 3
    assert [(each.end.op, len(each.nodes)) for each in chains_of(end)] == [
        ("add", 2),
        ("reduce", 1),
        ("add", 1),
        ("multiply", 1),
    ]
    assert (await end.numpy()).tolist() == [3 * (3 * BLOCK + 1)] * 4


def softmax(m: Any, x: Any) -> Any:
    weight = m.exp(x - m.max(x, axis=1, keepdims=True))
    return weight / m.sum(weight, axis=1, keepdims=True)


def test_outside_a_page_single_operations_and_functions_are_numpys(
    on_wasm: None, by_loops: list[bool], rng: np.random.Generator
) -> None:
    """Where arrays are copied to loops numpy is faster at them, and loops at chains."""
    x = rng.standard_normal((64, 512)).astype(np.float32)
    for formula in (lambda m, a: m.exp(a), lambda m, a: m.sum(a, axis=1), softmax):
        result, expected = formula(xp, xp.asarray(x)), formula(np, x.astype(np.float64))
        assert np.allclose(np.asarray(result), expected, rtol=1e-4, atol=1e-4)
    assert by_loops == []
    result = np.asarray(xp.asarray(x) * 2.0 + 1.0)
    assert np.array_equal(result, x * np.float32(2) + np.float32(1))
    assert len(by_loops) == 1
