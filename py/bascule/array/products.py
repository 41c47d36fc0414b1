"""Products of float32 matrices by the op table's own kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.program.compile import freeze
from bascule.program.graph import Graph

if TYPE_CHECKING:
    from bascule.array.graph import Node
    from bascule.backend.webgpu.backend import WebGpuBackend
    from bascule.backend.webgpu.kernel import Kernel


async def prepared_product(backend: WebGpuBackend, node: Node) -> tuple[Kernel, list[int], int]:
    """The kernel for x (..., M, K) @ y (..., K, N), where its operands are bound, its pipeline."""
    graph = Graph("matmul")
    x, y = node.attribute
    graph.output(graph.call("matmul", graph.input("x", x, "f32"), graph.input("y", y, "f32")))
    calls = freeze(graph).calls
    (kernel,) = await backend.pipelines.kernels_for(calls)
    places = [at for at, letter in enumerate(kernel.bindings) if letter != "-"]
    return kernel, places[1:], backend.pipelines.handle(kernel)
