"""Products of float32 matrices by the op table's own kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.program.compile import freeze
from bascule.program.graph import Graph

if TYPE_CHECKING:
    from bascule.array.graph import Node, Product
    from bascule.backend.webgpu.backend import WebGpuBackend
    from bascule.backend.webgpu.kernel import Kernel


async def prepared_product(backend: WebGpuBackend, node: Node) -> tuple[Kernel, list[int], int]:
    """Return the kernel for a node's `Product`, the bindings of its operands, and its pipeline."""
    graph = Graph("matmul")
    shapes: Product = node.attribute
    x, y = graph.input("x", shapes.x), graph.input("y", shapes.y)
    graph.output(graph.call("matmul", x, y, transposed=shapes.transposed))
    calls = freeze(graph).calls
    (kernel,) = await backend.pipelines.kernels_for(calls)
    places = [at for at, letter in enumerate(kernel.bindings) if letter != "-"]
    return kernel, places[1:], backend.pipelines.handle(kernel)
