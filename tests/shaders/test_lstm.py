"""lstm on every tier that computes ops itself."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernels import candidates
from bascule.errors import InputError
from bascule.program.graph import Graph
from tests.shaders.harness import KINDS, check_op, check_without_a_device, dims, normal

Arrays = list[np.ndarray]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    gates, weight = graph.input("gates", (5, 96)), graph.input("recurrent", (24, 96))
    graph.call("lstm", gates, weight, graph.input("memory", (48,)))


def _operands(rng: np.random.Generator, steps: int, hidden: int) -> Arrays:
    weight = normal(rng, hidden, 4 * hidden) / np.float32(hidden**0.5)
    return [normal(rng, steps, 4 * hidden), weight, normal(rng, 2 * hidden)]


# Steps and hidden numbers: one, about a workgroup, more than one; many rounds of loops.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case", [(1, 1), (3, 16), (9, 65), (40, 24), (4, 300), (600, 128)], ids=str
)
async def test_lstm(gpu: NativeGpu, rng, kind: str, case: tuple[int, int]) -> None:
    inputs = _operands(rng, *case)
    await check_op(gpu, kind, "lstm", inputs, tolerance=2e-5)
    await check_without_a_device("lstm", inputs, tolerance=2e-5)


async def test_each_variant(gpu: NativeGpu, rng: np.random.Generator) -> None:
    graph, inputs = Graph("variants"), _operands(rng, 6, 170)
    graph.call("lstm", *(graph.input(f"x{i}", x.shape) for i, x in enumerate(inputs)))
    names = [kernel.variant for kernel in candidates(graph.calls[0], gpu.adapter)]
    assert len(names) > 1
    for name in names:
        await check_op(gpu, "software", "lstm", inputs, tolerance=2e-5, kernel=name)


async def test_a_run_in_a_larger_bucket(gpu: NativeGpu, rng: np.random.Generator) -> None:
    (steps,) = dims(T=30)
    given = {"limits": [(steps, 64), None, None], "sizes": {"T": 11}}
    await check_op(gpu, "hardware", "lstm", _operands(rng, 11, 16), tolerance=2e-5, **given)


async def test_gates_far_out_stay_finite(gpu: NativeGpu, rng: np.random.Generator) -> None:
    gates, weight, state = _operands(rng, 6, 20)
    inputs = [gates * np.float32(1e4), weight, state]
    await check_op(gpu, "software", "lstm", inputs, tolerance=2e-5)
    await check_without_a_device("lstm", inputs, tolerance=2e-5)


def test_it_is_the_textbook_one(rng: np.random.Generator) -> None:
    """Unit by unit, in plain numbers, against the row's function."""
    from math import exp, tanh

    from bascule.program.ops.recurrent import lstm

    gates, weight, state = (x.astype(np.float64) for x in _operands(rng, 3, 4))
    hidden, cell = list(state[:4]), list(state[4:])
    result = lstm(gates, weight, state)
    for step in range(3):
        sums = [gates[step, j] + sum(hidden[k] * weight[k, j] for k in range(4)) for j in range(16)]
        entered, kept, shown = ([1 / (1 + exp(-v)) for v in sums[at : at + 4]] for at in (0, 4, 12))
        cell = [kept[u] * cell[u] + entered[u] * tanh(sums[8 + u]) for u in range(4)]
        hidden = [shown[u] * tanh(cell[u]) for u in range(4)]
        np.testing.assert_allclose(result[step], [*hidden, *cell], rtol=1e-12)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 16), (4, 12), (8,)),
        ((3, 12), (4, 16), (8,)),
        ((3, 16), (4, 16), (4,)),
        ((16,), (4, 16), (8,)),
    ],
    ids=str,
)
def test_shapes_that_do_not_belong_together_are_rejected(shapes) -> None:
    graph = Graph("wrong")
    with pytest.raises(InputError, match="op lstm"):
        graph.call("lstm", *(graph.input(f"x{i}", shape) for i, shape in enumerate(shapes)))
