"""Programs whose inputs, states and parameters share a name are rejected by every backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from bascule.backend.base import Backend
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import NativeKernels
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import open_native
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Value

DECLARE: dict[str, Callable[[Graph, str], Value]] = {
    "an input": lambda graph, name: graph.input(name, (2, 3)),
    "a state": lambda graph, name: graph.state(name, (2, 3)),
    "a parameter": lambda graph, name: graph.parameter(name, (2, 3)),
}


@pytest.fixture(params=["cpu", "wasm", "webgpu"])
async def backend(request: pytest.FixtureRequest, kernels: NativeKernels) -> AsyncIterator[Backend]:
    if request.param == "cpu":
        yield ReferenceBackend()
    elif request.param == "wasm":
        yield WasmBackend(kernels)
    else:
        gpu = await open_native()
        yield WebGpuBackend(gpu)
        gpu.destroy()


async def prepare(backend: Backend, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Prepare x + y, whose kinds and names are those two."""
    graph = Graph("sum")
    x, y = (DECLARE[kind](graph, name) for kind, name in (first, second))
    graph.output(graph.call("add", x, y))
    program = freeze(graph)
    weights = backend.store(program.parameters)
    states = backend.states(program.states, {})
    try:
        (await backend.prepare(program, weights, states)).close()
    finally:
        states.close()
        weights.close()


@pytest.mark.parametrize("first", DECLARE)
@pytest.mark.parametrize("second", DECLARE)
async def test_names_are_shared_by_no_two_kinds(backend: Backend, first: str, second: str) -> None:
    await prepare(backend, (first, "x"), (second, "y"))
    if first == second:
        return
    with pytest.raises(InputError, match=r"'x' as an? [a-z]+ and as an? [a-z]+") as raised:
        await prepare(backend, (first, "x"), (second, "x"))
    assert first in raised.value.found
    assert second in raised.value.found
    assert "'sum'" in raised.value.where
