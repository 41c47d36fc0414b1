"""Graphs made by chance: the WASM tier's loops beside numpy's operations, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import bascule.array as xp
from tests.array.test_groups import close


def test_any_graph_gives_the_numbers_of_the_cpu_tier(
    any_size: None, by_loops: list[bool], rng: np.random.Generator
) -> None:
    """Elements, views, casts, choices and reductions with or without axes, of several shapes."""
    for _ in range(60):
        n = int(rng.integers(1, 4))
        shape = tuple(int(each) for each in rng.choice([1, 2, 3, 4, 5, 8, 18, 33], n))
        pool: list[tuple[Any, Any]] = []
        for part in (shape, shape, shape[1:], (*shape[:-1], 1)):
            x = rng.integers(-4, 5, part).astype(str(rng.choice(["float32", "int16", "int32"])))
            pool.append((xp.asarray(x), xp.asarray(x, device=xp.device("cpu"))))
        for _ in range(rng.integers(2, 10)):
            operands = [pool[rng.integers(0, len(pool))] for _ in range(2)]
            choices = rng.integers(0, 1 << 30, 3)
            try:
                pool.append(
                    tuple(_combined(*pair, choices) for pair in zip(*operands, strict=True))
                )
            except xp.errors.ShapeError:
                continue  # these do not broadcast together
        del pool[:4]
        results = [pair for pair in pool[-2:] if pair[0].size]
        del pool, operands  # what a user holds is no part of a chain
        for mine, other in results:
            expected = np.asarray(other)
            assert np.asarray(mine).dtype == expected.dtype
            close(mine, expected.astype(np.float64), shape)
    assert by_loops.count(True) > 20


def _combined(x: Any, y: Any, choices: Any) -> Any:
    kind, which, flag = (int(each) for each in choices)
    if x.size > 4000:
        return x[:1] * 0.5 if x.ndim else x
    axis = which % x.ndim if x.ndim else None
    ways: list[Callable[[], Any]] = [
        lambda: x + y * 2,
        lambda: xp.astype(x, xp.float32) * 0.25 - y,
        lambda: xp.maximum(x, y),
        lambda: xp.where(x > y, x, -x),
        lambda: xp.astype(x, [xp.float32, xp.int16, xp.int32, xp.int8][which % 4]),
        lambda: xp.astype(xp.max(x, axis=axis, keepdims=flag % 2 > 0), xp.float32) / 8,
        lambda: xp.min(x, axis=axis, keepdims=flag % 2 > 0),
        lambda: xp.sum(xp.astype(x, xp.float32) / 64, axis=axis, keepdims=flag % 2 > 0),
        lambda: xp.permute_dims(x, tuple(range(x.ndim))[::-1]),
        lambda: x[::-1] if x.ndim else x,
        lambda: x[..., ::2] if x.ndim else x,
        lambda: xp.any(x > y, axis=axis) if x.ndim else x > y,
    ]
    result = ways[kind % len(ways)]()
    return xp.astype(result, xp.int32) if result.dtype == xp.bool else result
