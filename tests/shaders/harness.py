"""Runs one op on a device between poisoned buffers and compares it with numpy in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bascule.backend import reference
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Attribute, Dim, Shape

Array = np.ndarray[Any, np.dtype[Any]]

# What `select` looks at: pretending to be these covers every row of the kernel table.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "software": {"software": True},
    "software-plain": {"software": True, "features": frozenset()},
    "hardware": {"software": False},
    "hardware-plain": {"software": False, "features": frozenset()},
    "hardware-small": {"software": False, "features": frozenset(), "small": True},
}


def disguise(adapter: AdapterInfo, kind: str) -> AdapterInfo:
    """The adapter as if it were of that kind; features are only ever taken away."""
    changes = dict(KINDS[kind])
    if changes.pop("small", False):
        changes["limits"] = {**adapter.limits, "maxComputeInvocationsPerWorkgroup": 128}
    return replace(adapter, **changes)


async def check_op(
    gpu: NativeGpu,
    kind: str,
    op: str,
    inputs: Sequence[Array | None],
    /,
    *,
    tolerance: float,
    limits: Sequence[Shape | None] | None = None,
    sizes: Mapping[str, int] | None = None,
    **attributes: Attribute,
) -> Array:
    """Run `op` and compare; returns the device's result.

    `limits` gives shapes with Dims where a bucket is larger than the inputs of this run. The
    result buffer is filled with NaN before: a lane that writes nothing shows, and one that writes
    past the actual sizes does too.
    """
    gpu.adapter = disguise(gpu.adapter, kind)
    backend = WebGpuBackend(gpu)
    graph = Graph(op)
    values = [
        None
        if x is None
        else graph.input(f"x{i}", (limits[i] if limits else None) or x.shape, _dtype(x))
        for i, x in enumerate(inputs)
    ]
    result = graph.call(op, *values, **attributes)
    graph.output(result)
    executable = await backend.prepare(freeze(graph), backend.store(()))
    buffer = executable._buffers[result.name]
    gpu.write(buffer, 0, np.full(result.nbytes // 4, np.nan, np.float32))

    named = {v.name: x for v, x in zip(values, inputs, strict=True) if v is not None}
    found = (await executable.run(sizes or {}, named))[result.name]
    whole = np.empty(result.nbytes // 4, np.float32)
    await gpu.read(buffer, 0, whole)
    executable.close()

    assert np.isnan(whole[found.size :]).all(), "wrote past the actual sizes"
    wide = [x.astype(np.float64) if x is not None and x.dtype == np.float32 else x for x in inputs]
    expected = reference.FUNCTIONS[op](*wide, **attributes)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return found


def _dtype(x: Array) -> Any:
    return "u32" if x.dtype == np.uint32 else "f32"


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Standard normal float32."""
    return rng.standard_normal(shape).astype(np.float32)


def dims(**limits: int) -> list[Dim]:
    """Dims by name."""
    return [Dim(name, limit) for name, limit in limits.items()]


def sum_tolerance(length: int) -> float:
    """For a sum of `length` products of standard normals in f32, in any order: 8 sigma and more."""
    return 1e-6 * max(4.0, length**0.5 * 2)
