"""Reduction kernels: an element mapped, combined over axes, and finished."""

# pyright: reportPrivateUsage=false
# Kernels use the private parts of buffers.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bascule.base import assets
from bascule.base.arguments import whole_number
from bascule.base.arrays import NUMPY, need_numpy, np
from bascule.errors import InputError
from bascule.kernels.broadcasting import broadcast_shape, index_of, strides_of
from bascule.kernels.buffer import DeviceBuffer
from bascule.kernels.elementwise import (
    as_operand,
    as_type,
    bound_inputs,
    dtypes_of,
    outputs_of,
    shape_of,
)
from bascule.kernels.kernel import Kernel, no_shaders
from bascule.kernels.kernel_device import KernelDevice, SupportsKernels, kernel_device_for
from bascule.kernels.launch import folded
from bascule.kernels.operands import Operands
from bascule.kernels.recording import RECORDING
from bascule.kernels.reference import check_equal
from bascule.kernels.shader import Shader
from bascule.kernels.sources import label_of
from bascule.kernels.typed_names import TypedNames, checked_statements, typed_names

PARTS = ("map", "combine", "identity", "finish")
_MAX_CHUNKS = 256
_MIN_CHUNK = 4096  # elements that a workgroup combines at least


def reduce(
    signature: str,
    map: str,
    combine: str,
    identity: str,
    finish: str = "a",
    *,
    name: str = "reduce",
    reference: Callable[..., Any] | None = None,
    device: SupportsKernels | None = None,
) -> ReductionKernel:
    """Make a reduction: `reduce("x: f32 -> y: f32", "x * x", "a + b", "0.0", "sqrt(a)")`.

    All are WGSL expressions of the output's type: `map` of an element, `combine` of two results `a`
    and `b` in any order, `identity` its neutral element, `finish` of the last result `a` and the
    number of elements `n: u32`. Types, device and reference as in `elementwise`; a reference is
    called with the inputs, `axis` and `keepdims`. InputError or ShaderError for invalid text.
    """
    return ReductionKernel(signature, (map, combine, identity, finish), name, reference, device)


class ReductionKernel:
    """`await kernel(x, axis=1)`; see `reduce`.

    `axis` is an axis, several, or None for all; with `keepdims` they stay with size 1. The result
    is a `DeviceBuffer`, of shape (1,) if all axes are reduced, or `out`.
    """

    def __init__(
        self,
        signature: str,
        expressions: tuple[str, str, str, str],
        name: str,
        reference: Callable[..., Any] | None,
        device: SupportsKernels | None,
    ) -> None:
        self._label = label_of(name)
        self._names = typed_names(signature, self._label)
        if len(self._names.outputs) != 1 or not self._names.inputs:
            raise InputError(f"{self._label}, signature", "inputs and one output", repr(signature))
        self._expressions = tuple(
            checked_statements(text, self._label, each)
            for text, each in zip(expressions, PARTS, strict=True)
        )
        self._reference = reference
        self._device = device
        self._kernels: dict[object, tuple[Kernel, Kernel]] = {}
        self._proven: list[tuple[Kernel, Kernel]] = []

    def __repr__(self) -> str:
        return f"<ReductionKernel {self._label}: {self._names.text}>"

    async def __call__(
        self,
        *arguments: Any,
        axis: int | Sequence[int] | None = None,
        keepdims: bool = False,
        out: Any = None,
        **named: Any,
    ) -> Any:
        """Run; InputError for arguments and axes that do not fit, other errors as `Kernel`."""
        await need_numpy(self._label, "Load numpy into this Pyodide first.")
        inputs = bound_inputs(self._label, [n for n, _ in self._names.inputs], arguments, named)
        has_reference = self._reference is not None
        held = [*inputs.values(), out]
        device = await kernel_device_for(self._device, held, has_reference=has_reference)
        plan = self._plan(inputs, axis, keepdims, out)
        adapter = device.pool.backend.adapter
        if adapter is None:
            return await self._serve(device, plan)
        kernels = self._kernels_on(device, plan)
        n_partial = plan.chunks["outputs"] * plan.chunks["chunks"]
        maximum = adapter.limits["maxComputeWorkgroupsPerDimension"]
        partial = await kernels[0](
            **plan.operands,
            bascule_partial=(n_partial,),
            bascule_index=plan.index,
            bascule_chunks=plan.chunks,
            groups=folded(n_partial, maximum),
        )
        _, result = await kernels[1](  # it may write both
            bascule_partial=partial,
            **plan.outputs,
            bascule_chunks=plan.chunks,
            groups=folded(plan.chunks["outputs"], maximum),
        )
        if has_reference and kernels not in self._proven and RECORDING.get() is None:
            await self._prove(plan, result)
            self._proven.append(kernels)
        return result

    def _plan(self, inputs: Mapping[str, Any], axis: Any, keepdims: bool, out: Any) -> _Plan:
        """Return what a call computes; InputError for what does not fit."""
        arrays = {name: as_operand(value) for name, value in inputs.items()}
        types = self._names.resolved(self._label, dtypes_of(inputs))
        shapes = [shape_of(array) for array in arrays.values()]
        full = broadcast_shape(shapes, self._label)
        gone = _axes(axis, len(full), self._label)
        remaining = [d for d in range(len(full)) if d not in gone]
        shape = tuple(
            1 if d in gone else n for d, n in enumerate(full) if keepdims or d in remaining
        )
        strides = [strides_of(each, full) for each in shapes]
        index = [
            index_of(tuple(full[d] for d in axes), [[s[d] for d in axes] for s in strides],
                     self._label)
            for axes in (remaining, sorted(gone))
        ]  # fmt: skip
        n_reduced = index[1]["n"]
        chunks = min(_MAX_CHUNKS, -(-n_reduced // _MIN_CHUNK))
        sizes = {"outputs": index[0]["n"], "chunks": chunks, "n": n_reduced}
        sizes["chunk"] = -(-n_reduced // chunks)
        return _Plan(
            {n: as_type(a, types[n], inputs[n]) for n, a in arrays.items()},
            outputs_of(self._label, [self._names.outputs[0][0]], out, shape),
            types,
            index,
            sizes,
            {"axis": tuple(sorted(gone)), "keepdims": keepdims},
        )

    def _kernels_on(self, device: KernelDevice, plan: _Plan) -> tuple[Kernel, Kernel]:
        """Return both steps, for these types."""
        key = id(device), tuple(plan.types.items())
        if key not in self._kernels:
            text, sections = _source(self._names, plan.types, self._expressions, self._label)
            steps = [
                Shader(text, entry, self._label, sections=sections)
                for entry in ("bascule_main", "bascule_last")
            ]
            self._kernels[key] = (
                Kernel(device, steps[0], {}, None),
                Kernel(device, steps[1], {}, None),
            )
        return self._kernels[key]

    async def _serve(self, device: KernelDevice, plan: _Plan) -> Any:
        """Compute with the reference, on a tier without shaders."""
        if self._reference is None:
            raise no_shaders(device.pool.backend.tier, self._label)
        await device.ready(self._label)
        ((name, out),) = plan.outputs.items()
        type: Any = plan.types[name]
        if isinstance(out, tuple):
            out = device.pool.empty(out, type, self._label)

        async def step() -> None:
            array = np.ascontiguousarray(await self._expected(plan), NUMPY[type])
            if isinstance(out, DeviceBuffer):
                out._write(array.reshape(out.shape))
            else:
                out[...] = array.reshape(out.shape)

        recording = RECORDING.get()
        if recording is None:
            await step()
        else:
            recording.add(step, Operands(), self)
        return out

    async def _prove(self, plan: _Plan, result: Any) -> None:
        """WrongResultError if a first result differs from the reference's."""
        computed = await result.numpy() if isinstance(result, DeviceBuffer) else np.asarray(result)
        expected = np.asarray(await self._expected(plan)).astype(computed.dtype)
        check_equal(self._label, {"result": expected}, {"result": computed})

    async def _expected(self, plan: _Plan) -> Any:
        """Return the reference's result."""
        values = {
            name: await each.numpy() if isinstance(each, DeviceBuffer) else np.asarray(each)
            for name, each in plan.operands.items()
        }
        assert self._reference is not None  # asked for only where there is one
        return self._reference(**values, **plan.options)


@dataclass(frozen=True, slots=True)
class _Plan:
    operands: Mapping[str, Any]
    outputs: Mapping[str, Any]
    types: Mapping[str, str]
    index: Sequence[Mapping[str, Any]]
    chunks: Mapping[str, int]
    options: Mapping[str, Any]


def _axes(axis: Any, rank: int, label: str) -> frozenset[int]:
    """Return the reduced axes; InputError for one that does not exist, or is repeated."""
    axes: list[Any] = list(axis) if isinstance(axis, tuple | list) else [axis]
    if axis is None:
        return frozenset(range(rank))
    results = [whole_number(f"{label}, axis", each, -rank, rank - 1) % rank for each in axes]
    if len(set(results)) != len(results):
        raise InputError(f"{label}, axis", "axes once each", repr(axis)[:80])
    return frozenset(results)


def _source(
    names: TypedNames, types: Mapping[str, str], expressions: Sequence[str], label: str
) -> tuple[str, list[tuple[int, str]]]:
    """Return the kernel, and the line on which each expression starts."""
    ((output, _),) = names.outputs
    inputs = [name for name, _ in names.inputs]
    enable = "enable f16; " if "f16" in types.values() else ""
    heads = [
        f"{enable}alias BasculeType = {types[output]}; fn bascule_map("
        f"{', '.join(f'{n}: {types[n]}' for n in inputs)}) -> BasculeType {{ return",
        "; } fn bascule_combine(a: BasculeType, b: BasculeType) -> BasculeType { return",
        "; } fn bascule_identity() -> BasculeType { return",
        "; } fn bascule_finish(a: BasculeType, n: u32) -> BasculeType { return",
    ]
    lines: list[str] = []
    sections: list[tuple[int, str]] = []
    for head, text, what in zip(heads, expressions, PARTS, strict=True):
        lines += [head]
        sections.append((len(lines) + 1, f"{label}, {what}"))
        lines += text.split("\n")
    sections.append((len(lines) + 1, label))
    loads = (
        f"{name}[bascule_offset(0u, output, {at}u) + bascule_offset(1u, r, {at}u)]"
        for at, name in enumerate(inputs)
    )
    lines += [
        "; }",
        *(
            f"@group(0) @binding({at}) var<storage, read> {name}: array<{types[name]}>;"
            for at, name in enumerate(inputs, start=2)
        ),
        f"@group(0) @binding({len(inputs) + 2}) "
        "var<storage, read_write> bascule_partial: array<BasculeType>;",
        f"@group(0) @binding({len(inputs) + 3}) "
        f"var<storage, read_write> {output}: array<BasculeType>;",
        "fn bascule_element(output: u32, r: u32) -> BasculeType {",
        f"  return bascule_map({', '.join(loads)});",
        "}",
        f"fn bascule_store(at: u32, value: BasculeType) {{ {output}[at] = value; }}",
        assets.text("shaders/user/index.wgsl"),
        assets.text("shaders/user/reduce.wgsl"),
    ]
    return "\n".join(lines), sections
