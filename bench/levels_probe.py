"""What each level of ComputeShaderManager takes where this runs: natively, and in a page.

The page gets this very text. The levels run in turn, so that a machine whose speed drifts drifts
for all of them.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from bascule import ComputeShaderManager, open_device

LEVELS = range(4)
# Operands by shader; the output has the rows of the first and the columns of the last.
CASES: dict[str, tuple[tuple[int, ...], ...]] = {
    "matmul": ((128, 384), (384, 384)),
    "linear_gelu": ((128, 384), (384, 384), (384,)),
    "layer_norm": ((1024, 384), (384,), (384,)),
    "softmax": ((1024, 384),),
}


async def measure(rounds: int, calls: int) -> dict[str, Any]:
    """The median time of a call, in ms, of each shader at each level, with its kernels.

    `calls` calls are run, then the output is read once; a round's time is divided by `calls`. The
    results of a shader's levels are held against each other before their times count.
    """
    rng = np.random.default_rng(0)
    device = await open_device("webgpu", remember=False)
    managers = [ComputeShaderManager("text", level, device=device) for level in LEVELS]
    results: dict[str, Any] = {}
    for name, shapes in CASES.items():
        given = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        inputs = [await device.buffer(one) for one in given]
        out = await device.buffer(np.zeros((shapes[0][0], shapes[-1][-1]), np.float32))
        shaders = [manager.get_shader(name) for manager in managers]
        times: list[list[float]] = [[] for _ in LEVELS]
        expected = None
        for number in range(rounds + 1):
            for level in LEVELS:
                began = time.perf_counter()
                for _ in range(calls):
                    await managers[level].execute_shader(shaders[level], inputs, [out])
                result = await out.numpy()
                ms = 1e3 * (time.perf_counter() - began) / calls
                if number:  # the first round compiles, and level 3 measures its candidates
                    times[level].append(ms)
                elif expected is None:
                    expected = result
                else:
                    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)
        results[name] = [
            {"ms": statistics.median(times[level]), "variants": shaders[level].variants}
            for level in LEVELS
        ]
    output = device.device_name
    device.close()
    return {"device": output, "shaders": results}
