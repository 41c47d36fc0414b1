"""transpose, and reshape, which is a view and costs nothing, on every tier."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from tests.shaders.harness import check_op, check_without_a_device, dims, normal

ORDERS = [
    ((7,), "0"),
    ((65, 3), "10"),
    ((1, 9), "10"),
    *(((3, 5, 2), "".join(order)) for order in permutations("012")),
    *(((2, 3, 5, 7), order) for order in ("0213", "0231", "3210", "1032", "0123")),
]


def catalogued(graph: Graph) -> None:
    """For `catalogue`."""
    graph.call("transpose", graph.input("turned", (2, 3, 4)), axes="201")


@pytest.mark.parametrize(("shape", "axes"), ORDERS, ids=str)
async def test_orders(gpu: NativeGpu, rng, shape: tuple[int, ...], axes: str) -> None:
    x = normal(rng, *shape)
    await check_op(gpu, "software", "transpose", [x], tolerance=0, axes=axes)
    await check_without_a_device("transpose", [x], tolerance=0, axes=axes)


async def test_sizes_of_a_run(gpu: NativeGpu, rng) -> None:
    b, t = dims(B=4, T=16)
    result = {"limits": [(b, t, 3, 5)], "sizes": {"B": 2, "T": 9}, "axes": "0213"}
    x = normal(rng, 2, 9, 3, 5)
    await check_op(gpu, "hardware", "transpose", [x], tolerance=0, **result)
    await check_without_a_device("transpose", [x], tolerance=0, **result)


@pytest.mark.parametrize("axes", ["", "01", "0122", "013", "a01", "2 01"])
def test_axes_that_are_no_order_are_refused(axes: str) -> None:
    graph = Graph("wrong")
    with pytest.raises(InputError, match="op transpose"):
        graph.call("transpose", graph.input("x", (2, 3, 4)), axes=axes)


def test_no_kernel_turns_more_than_four_axes() -> None:
    graph = Graph("wrong")
    with pytest.raises(InputError, match="one to four axes"):
        graph.call("transpose", graph.input("x", (1, 2, 3, 4, 5)), axes="43210")


def heads_apart() -> Program:
    """x (T, 3 * 2 * 4) -> scores (2, T, T) of two heads, and x in another shape."""
    (t,) = dims(T=16)
    graph = Graph("heads")
    x = graph.input("x", (t, 24))
    q, k = (graph.call("transpose", graph.reshape(x, (t, 6, 4)), axes="102") for _ in range(2))
    graph.output(graph.call("matmul", q, k, transposed=True))
    summed = graph.call("add", x, x)
    relu = graph.call("activate", graph.reshape(summed, (t, 2, 12)), kind="relu")
    graph.output(relu)
    graph.output(graph.reshape(graph.call("multiply", x, x), (t, 3, 2, 4)))
    return freeze(graph)


async def test_views_on_every_tier(gpu: NativeGpu, rng) -> None:
    program, x = heads_apart(), normal(rng, 9, 24)
    wide = x.astype(np.float64).reshape(9, 6, 4).transpose(1, 0, 2)
    relu = np.maximum(2 * x, 0).reshape(9, 2, 12)
    expected = [wide @ wide.swapaxes(1, 2), relu, (x * x).reshape(9, 3, 2, 4)]
    assert len(program.calls) == 6  # views are none
    for backend in (WebGpuBackend(gpu), WasmBackend(open_native()), ReferenceBackend()):
        executable = await backend.prepare(program, backend.store(()))
        for _ in range(2):
            result = await executable.run({"T": 9}, {"x": x})
            for one, right in zip(result.values(), expected, strict=True):
                assert one.shape == right.shape
                np.testing.assert_allclose(one, right, rtol=1e-5, atol=1e-5)


def test_a_view_does_not_fuse() -> None:
    graph = Graph("view")
    x, w = graph.input("x", (3, 8)), graph.input("w", (6, 8))
    y = graph.call("linear", x, w, activation="none")
    graph.output(graph.call("activate", graph.reshape(y, (3, 2, 3)), kind="relu"))
    assert [call.op for call in freeze(graph).calls] == ["linear", "activate"]


def test_views_keep_their_elements_and_sizes_of_a_run() -> None:
    graph = Graph("wrong")
    t, s = dims(T=8, S=8)
    x = graph.input("x", (2, t, 6))
    assert graph.reshape(x, (2, t, 3, 2)).shape == (2, t, 3, 2)
    for shape in ((2, t, 5), (2, s, 6), (t, 2, 6), (2, 8, 6), (12, t), (2, t, 6, t)):
        with pytest.raises(InputError, match="reshape"):
            graph.reshape(x, shape)
    assert graph.reshape(graph.state("cache", (4, 6)), (6, 4)).shape == (6, 4)
    with pytest.raises(InputError, match="a result, a state or an input"):
        graph.reshape(graph.parameter("w", (4, 6)), (6, 4))
