"""conv1d, recorded on general ops, against the sum that defines it, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import open_native as open_gpu
from bascule.models.layers import conv1d
from bascule.program.compile import freeze
from bascule.program.graph import Graph


def convolved(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    wide = np.pad(x.astype(np.float64), ((0, 0), (pad, pad)))
    width = weight.shape[2]
    places = range(0, wide.shape[1] - width + 1, stride)
    return np.stack([np.einsum("ck,nck->n", wide[:, t : t + width], weight) for t in places])


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_conv1d(tier: str) -> None:
    opened = {"wasm": lambda: WasmBackend(open_native()), "cpu": ReferenceBackend}
    backend = WebGpuBackend(await open_gpu()) if tier == "webgpu" else opened[tier]()
    rng = np.random.default_rng(3)
    for channels, length, n, width, stride, pad, biased in (
        (1, 1, 1, 1, 1, 0, False),
        (5, 16, 7, 3, 1, 1, True),
        (8, 31, 4, 3, 2, 1, True),
        (3, 20, 9, 5, 4, 0, False),
        (2, 6, 3, 8, 3, 2, True),
    ):
        x = rng.standard_normal((channels, length)).astype(np.float32)
        weight = rng.standard_normal((n, channels, width)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32)
        graph = Graph("conv1d")
        matrix = graph.parameter("weight", (n, channels * width))
        added = graph.parameter("bias", (n,)) if biased else None
        sound = graph.input("x", x.shape)
        y = conv1d(graph, sound, matrix, added, width=width, stride=stride, pad=pad)
        graph.output(graph.call("activate", y, kind="gelu"))
        program = freeze(graph)
        assert [call.op for call in program.calls] == ["patches", "linear"]  # gelu is fused
        store = backend.store(program.parameters)
        store.write(store.targets["weight"], 0, weight.data)
        if biased:
            store.write(store.targets["bias"], 0, bias.data)
        executable = await backend.prepare(program, store)
        (result,) = (await executable.run({}, {"x": x})).values()
        plain = convolved(x, weight, stride, pad) + (bias if biased else 0)
        np.testing.assert_allclose(result, FUNCTIONS["activate"](plain, kind="gelu"), atol=1e-5)
    backend.close()
