"""Runs one op on a device between poisoned buffers and compares it with numpy in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernels import candidates
from bascule.program.blocks import BlockMatrix
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Attribute, Dim, Shape, Value

Array = np.ndarray[Any, np.dtype[Any]]

# What `select` looks at: pretending to be these covers every row of the kernel table.
KINDS: Mapping[str, Mapping[str, Any]] = {
    "software": {"software": True},
    "software-plain": {"software": True, "features": frozenset()},
    "hardware": {"software": False},
    "hardware-plain": {"software": False, "features": frozenset()},
    "hardware-small": {"software": False, "features": frozenset(), "small": True},
    # Where the fixture `gpu` opens a device of the tier "webgpu-limited".
    "hardware-limited": {"software": False, "features": frozenset()},
    "software-limited": {"software": True, "features": frozenset()},
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
    inputs: Sequence[Array | BlockMatrix | None],
    /,
    *,
    tolerance: float,
    unit: float = 1.0,
    limits: Sequence[Shape | None] | None = None,
    sizes: Mapping[str, int] | None = None,
    states: Sequence[int] = (),
    kernel: str = "",
    **attributes: Attribute,
) -> Array:
    """Run `op` and compare; returns the device's result.

    `kernel` is the variant that serves it, instead of the default.

    `limits` gives shapes with Dims where a bucket is larger than the inputs of this run; `states`
    are the operands that are states, which are compared, too; `unit` is about how large the numbers
    are that cancel out in a result. A BlockMatrix is a weight. The result
    buffer is filled with NaN before: a lane that writes nothing shows, and one that writes past the
    actual sizes does too.
    """
    gpu.adapter = disguise(gpu.adapter, kind)
    backend = WebGpuBackend(gpu)
    graph = Graph(op)
    values: list[Value | None] = []
    for i, x in enumerate(inputs):
        shape = (limits[i] if limits else None) or (x.shape if x is not None else ())
        if x is None:
            values.append(None)
        elif isinstance(x, BlockMatrix):
            values.append(graph.parameter(f"x{i}", x.shape, dtype=x.dtype))
        else:
            declare = graph.state if i in states else graph.input
            values.append(declare(f"x{i}", shape, _dtype(x)))
    result = graph.call(op, *values, **attributes)
    graph.output(result)
    program = freeze(graph)
    store = backend.store(program.parameters)
    kept = backend.states(program.states, sizes or {})
    for value, x in zip(values, inputs, strict=True):
        if isinstance(x, BlockMatrix) and value is not None:
            store.write(store.targets[value.name], 0, padded(x.data))
        elif x is not None and value in program.states and value is not None:
            kept.write(value.name, 0, padded(x))
    if kernel:
        rivals = candidates(program.calls[0], gpu.adapter)
        chosen = next(rival for rival in rivals if rival.variant == kernel)
        backend.pipelines.choices.note_tuned(program.calls[0], chosen, [(chosen, 1.0)])
    executable = await backend.prepare(program, store, kept)
    buffer = executable._buffers[result.name]
    gpu.write(buffer, 0, np.full(result.nbytes // 4, np.nan, np.float32))

    named = {v.name: x for v, x in zip(values, inputs, strict=True) if v in program.inputs and v}
    found = (await executable.run(sizes or {}, named))[result.name]
    whole = np.empty(result.nbytes // 4, np.float32)
    await gpu.read(buffer, 0, whole)
    assert np.isnan(whole[found.size :]).all(), "wrote past the actual sizes"

    wide = [x.astype(np.float64) if _is_f32(x) else x for x in inputs]
    wide = [
        x.copy() if i in states and isinstance(x, np.ndarray) else x for i, x in enumerate(wide)
    ]
    given = {k: (sizes or {})[v.name] if isinstance(v, Dim) else v for k, v in attributes.items()}
    expected = FUNCTIONS[op](*wide, **given)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * unit)
    for i in states:
        before, after = inputs[i], wide[i]
        assert isinstance(before, np.ndarray)
        assert isinstance(after, np.ndarray)
        now = np.empty_like(padded(before))
        await kept.read(f"x{i}", 0, now)
        now = now.view(before.dtype)[: before.size].reshape(before.shape)
        np.testing.assert_allclose(now, after, rtol=tolerance, atol=tolerance)
    executable.close()
    kept.close()
    store.close()
    return found


async def check_without_a_device(
    op: str,
    inputs: Sequence[Array | None],
    /,
    *,
    tolerance: float,
    limits: Sequence[Shape | None] | None = None,
    sizes: Mapping[str, int] | None = None,
    **attributes: Attribute,
) -> None:
    """Run `op` on the tiers wasm and cpu and compare with numpy in float64; as in `check_op`."""
    wide = [x.astype(np.float64) if _is_f32(x) else x for x in inputs]
    expected = FUNCTIONS[op](*wide, **attributes)
    for backend in (WasmBackend(open_native()), ReferenceBackend()):
        graph, named = Graph(op), dict[str, Array]()
        values: list[Value | None] = []
        for i, x in enumerate(inputs):
            shape = (limits[i] if limits else None) or (x.shape if x is not None else ())
            values.append(None if x is None else graph.input(f"x{i}", shape, _dtype(x)))
            named |= {} if x is None else {f"x{i}": x}
        result = graph.call(op, *values, **attributes)
        graph.output(result)
        executable = await backend.prepare(freeze(graph), backend.store(()))
        found = (await executable.run(sizes or {}, named))[result.name]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def padded(x: Array) -> Array:
    """Its bytes as a flat array, filled up to whole words."""
    data = np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)
    return np.concatenate((data, np.zeros(-len(data) % 4, np.uint8)))


def _is_f32(x: Array | BlockMatrix | None) -> TypeGuard[Array]:
    return isinstance(x, np.ndarray) and x.dtype == np.float32


def _dtype(x: Array) -> Any:
    return {"uint32": "u32", "float16": "f16"}.get(x.dtype.name, "f32")


def normal(rng: np.random.Generator, *shape: int) -> Array:
    """Standard normal float32."""
    return rng.standard_normal(shape).astype(np.float32)


def dims(**limits: int) -> list[Dim]:
    """Dims by name."""
    return [Dim(name, limit) for name, limit in limits.items()]


def sum_tolerance(length: int) -> float:
    """For a sum of `length` products of standard normals in f32, in any order: 8 sigma and more."""
    return 1e-6 * max(4.0, length**0.5 * 2)
