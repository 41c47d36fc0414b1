"""ComputeShaderManager: shaders of the catalogue and of users, at four optimization levels."""

# pyright: reportPrivateUsage=false
# It uses the private parts of buffers.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bascule.backend.tiers import SHADER_TIERS
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.computation import GpuComputation
from bascule.backend.webgpu.kernel import Kernel as CatalogueKernel
from bascule.backend.webgpu.kernels import candidates
from bascule.base.arguments import described, did_you_mean, whole_number
from bascule.base.arrays import need_numpy, np
from bascule.base.waiting import start
from bascule.compat.own_device import OwnDevice
from bascule.device.device import Device, open_device
from bascule.errors import InputError, TierUnavailableError
from bascule.kernels.buffer import BufferPool, DeviceBuffer
from bascule.kernels.kernel import Kernel
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import OPS
from bascule.program.program import Call, Program, Shape

_TRANSFORMER = ("matmul", "linear", "linear_gelu", "layer_norm", "softmax", "add", "activate")
_OPERATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "text": (*_TRANSFORMER, "rms_norm", "l2_normalise"),
        "vision": (*_TRANSFORMER, "transpose"),
        "audio": (*_TRANSFORMER, "transpose"),
        "multimodal": (*_TRANSFORMER, "l2_normalise", "transpose"),
    }
)
# Names from other libraries.
_NAMES: Mapping[str, str] = MappingProxyType(
    {"matrix_multiplication": "matmul", "gemm": "matmul", "layernorm": "layer_norm"}
)
_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "layer_norm": {"eps": 1e-5},
        "rms_norm": {"eps": 1e-6},
        "l2_normalise": {"eps": 1e-12},
        "activate": {"kind": "gelu"},
        "transpose": {"order": "10"},
        "linear": {"activation": "none"},
    }
)
_TUNING_S = 5.0


@dataclass(slots=True, weakref_slot=True, eq=False)
class ManagedShader:
    """A shader from `ComputeShaderManager.get_shader`.

    `variants` names the kernels of its last run, one per dispatch.
    """

    name: str
    level: int
    variants: tuple[str, ...] = ()
    _kernel: Kernel | None = None
    _computations: dict[object, GpuComputation] = field(
        default_factory=dict[object, GpuComputation]
    )
    _chosen: dict[object, tuple[str, ...]] = field(default_factory=dict[object, tuple[str, ...]])


class ComputeShaderManager:
    """Finds shaders and runs them on arrays and buffers.

    `model_type` ("text", "vision", "audio", "multimodal") determines the `operations`.
    `optimization_level`: 0 uses the shortest shader, without optional features; 1 the default one,
    without features; 2 fuses what one kernel can do and uses subgroups if the device has them
    (slower than level 1 on an emulated GPU); 3 measures the candidates for the given shapes and
    remembers the fastest. Runs on `device`, or on a WebGPU device of its own.
    """

    def __init__(
        self,
        model_type: str = "text",
        optimization_level: int = 1,
        *,
        device: Device | None = None,
    ) -> None:
        if model_type not in _OPERATIONS:
            expected = f"one of {', '.join(_OPERATIONS)}"
            raise InputError("ComputeShaderManager, model_type", expected, described(model_type))
        where = "ComputeShaderManager, optimization_level"
        self.optimization_level = whole_number(where, optimization_level, 0, 3)
        self.model_type = model_type
        self._device = OwnDevice(device, partial(open_device, SHADER_TIERS))

    @property
    def operations(self) -> tuple[str, ...]:
        """The shaders of the catalogue for such models."""
        return _OPERATIONS[self.model_type]

    def get_shader(self, name: str | PathLike[str]) -> ManagedShader:
        """Return a shader by its operation ("matrix_multiplication" is "matmul"), or a WGSL file's
        path.

        InputError for an unknown name.
        """
        if isinstance(name, PathLike) or name.endswith(".wgsl"):
            return ManagedShader(str(Path(name)), self.optimization_level)
        known = _NAMES.get(name, name)
        if known not in self.operations:
            hint = did_you_mean(name, [*self.operations, *_NAMES])
            expected = f"one of {', '.join(self.operations)}, or the path of a .wgsl file"
            raise InputError("get_shader", expected, repr(name), hint=hint)
        return ManagedShader(known, self.optimization_level)

    def execute_shader(
        self, shader: ManagedShader, input_buffers: Sequence[Any], output_buffers: Sequence[Any]
    ) -> Any:
        """Run a shader on arrays or `DeviceBuffer`s; fill and return the outputs.

        A file's shader gets as many invocations as its first output has elements. Returns an
        awaitable if an event loop is running, and runs to completion otherwise. InputError for
        shapes that do not fit; ShaderError, with line and column, for a file that does not compile.
        """
        return start(self._execute(shader, list(input_buffers), list(output_buffers)))

    def close(self) -> None:
        """Close the device, if it was opened here."""
        self._device.close()

    async def _execute(self, shader: ManagedShader, inputs: list[Any], outputs: list[Any]) -> Any:
        await need_numpy("execute_shader", "Load numpy into this Pyodide first.")
        if not outputs:
            raise InputError("execute_shader", "an output", "none")
        device = await self._device.get()
        if shader.name.endswith(".wgsl"):
            await self._execute_file(device, shader, inputs, outputs)
        else:
            await self._execute_operation(device, shader, inputs, outputs)
        return outputs

    async def _execute_file(
        self, device: Device, shader: ManagedShader, inputs: list[Any], outputs: list[Any]
    ) -> None:
        count = prod(np.shape(outputs[0]))
        if shader._kernel is None:
            shader._kernel = device.kernel(Path(shader.name))
            if shader.level == 3 and "WORKGROUP" in shader._kernel.overrides:
                over = {"WORKGROUP": [32, 64, 128, 256]}
                out = tuple(outputs) if len(outputs) > 1 else outputs[0]
                await shader._kernel.autotune(*inputs, out=out, count=count, over=over)
        out = tuple(outputs) if len(outputs) > 1 else outputs[0]
        await shader._kernel(*inputs, out=out, count=count)
        constants = " ".join(f"{n}={v:g}" for n, v in shader._kernel.constants.items())
        shader.variants = (f"{Path(shader.name).stem} {constants}".strip(),)

    async def _execute_operation(
        self, device: Device, shader: ManagedShader, inputs: list[Any], outputs: list[Any]
    ) -> None:
        backend, pool = device.backend, device.kernel_device.pool
        if not isinstance(backend, WebGpuBackend):
            raise TierUnavailableError(device.tier, "it runs no shaders")
        operands = [_uploaded(pool, each, at) for at, each in enumerate(inputs)]
        shapes = tuple(operand.shape for operand in operands)
        async with backend.turns.turn():
            if shapes not in shader._computations:
                program = _program(shader, shapes)
                kernels = await _kernels(backend, program, shader.level)
                computation = GpuComputation(backend.gpu, backend.pipelines, program, kernels)
                pool.when_dropped(shader, computation)
                shader._computations[shapes] = computation
                shader._chosen[shapes] = tuple(kernel.variant for kernel in kernels)
            program = _program(shader, shapes)
            (result,) = program.outputs
            target = _target(pool, outputs[0], result.limits)
            stores = {f"x{at}": operand._store for at, operand in enumerate(operands)}
            await shader._computations[shapes].run(stores, {result.name: target._store})
        shader.variants = shader._chosen[shapes]
        if target is not outputs[0]:
            outputs[0][...] = await target.numpy()


def _uploaded(pool: BufferPool, value: Any, at: int) -> DeviceBuffer:
    if isinstance(value, DeviceBuffer):
        value._check_open("execute_shader")
        return value
    return pool.upload(value, f"execute_shader, input {at}")


def _target(pool: BufferPool, output: Any, shape: tuple[int, ...]) -> DeviceBuffer:
    if tuple(np.shape(output)) != shape or not isinstance(output, DeviceBuffer | np.ndarray):
        result = f"{type(output).__name__} of shape {np.shape(output)}"
        raise InputError("execute_shader, output", f"an array or a buffer of shape {shape}", result)
    return output if isinstance(output, DeviceBuffer) else pool.empty(shape, "f32", "the output")


def _program(shader: ManagedShader, shapes: Sequence[Shape]) -> Program:
    """Return the operation on such operands; fused from level 2 on."""
    graph = Graph(shader.name)
    values = [graph.input(f"x{at}", shape) for at, shape in enumerate(shapes)]
    op = "linear" if shader.name == "linear_gelu" else shader.name
    row = OPS[op]
    n_required = sum(not o.optional for o in row.operands)
    if not n_required <= len(values) <= len(row.operands):
        names = ", ".join(o.name for o in row.operands)
        raise InputError(f"shader {shader.name}", f"inputs {names}", f"{len(values)} inputs")
    result = graph.call(op, *values, **_SETTINGS.get(op, {}))
    if shader.name == "linear_gelu":
        result = graph.call("activate", result, kind="gelu")
    graph.output(result)
    return freeze(graph, fused=shader.level >= 2)


async def _kernels(backend: WebGpuBackend, program: Program, level: int) -> list[CatalogueKernel]:
    """Return a compiled kernel for each call, chosen by the level."""
    if level == 3:
        await backend.tune([program], budget_s=_TUNING_S)
        return await backend.pipelines.kernels_for(program.calls)
    kernels = [_chosen(backend, call, level) for call in program.calls]
    await backend.pipelines.ensure(kernels)
    return kernels


def _chosen(backend: WebGpuBackend, call: Call, level: int) -> CatalogueKernel:
    if level < 2:
        listed = candidates(call, replace(backend.adapter, features=frozenset()))
        return min(listed, key=lambda kernel: len(kernel.wgsl)) if level == 0 else listed[0]
    listed = candidates(call, backend.adapter)
    return next((k for k in listed if "subgroup" in k.variant), listed[0])
