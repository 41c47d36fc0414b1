"""Kernel: a user's WGSL source as a function of arrays and buffers."""

# pyright: reportPrivateUsage=false
# Kernels use the private parts of buffers.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from bascule.backend.adapter import DEFAULT_LIMITS
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.computation import buffer_of, grant_large
from bascule.backend.webgpu.gpu import Gpu
from bascule.base.arrays import Array, need_numpy, np
from bascule.base.turns import CrossLoopLock
from bascule.base.waiting import all_or_first_error
from bascule.errors import (
    BasculeError,
    DeviceLostError,
    GpuError,
    InputError,
    LimitError,
    TierUnavailableError,
)
from bascule.kernels.call import Call, Signature
from bascule.kernels.compiled import CompiledShader, Launch
from bascule.kernels.kernel_device import KernelDevice
from bascule.kernels.launch import groups_for
from bascule.kernels.numpy_types import dtype_of
from bascule.kernels.operands import Operands, operands_of
from bascule.kernels.recording import RECORDING, Recording
from bascule.kernels.reference import Reference, check_equal, outputs_of, restore_outputs
from bascule.kernels.shader import Shader
from bascule.kernels.timing import timed
from bascule.kernels.tuning import Tuning, candidates, recalled, remember, tuning_key
from bascule.kernels.wgsl_types import ArrayOf, rounded


class Kernel:
    """A user's compute shader: `await kernel(x, y, out=z, count=n)`.

    `device.kernel` makes one. Positional arguments fill the storage bindings in numerical order,
    keywords name them; members of a uniform struct are also keywords. `out` fills the writable
    bindings. Arguments are numpy arrays, `DeviceBuffer`s, bytes, or in a page JavaScript's typed
    arrays, of the binding's type; an output may be a shape, for a new buffer. `count` is the number
    of invocations (up to three numbers), `groups` that of workgroups. A call returns its output,
    for several a tuple: buffers stay on the device, arrays are filled.
    """

    def __init__(
        self,
        device: KernelDevice,
        shader: Shader,
        constants: Mapping[str, Any],
        reference: Callable[..., Any] | None,
    ) -> None:
        shader.pipeline_constants(constants)  # raises for a name or a value that does not fit
        self._device = device
        self._shader = shader
        self._constants = {name: float(value) for name, value in constants.items()}
        self._signature = Signature(shader)
        self._reference = None if reference is None else Reference(reference, shader.label)
        self._compiled: CompiledShader | None = None
        self._preparing = CrossLoopLock()
        self._proven: CompiledShader | None = None
        self.__doc__ = f"The kernel {shader.label}, {shader.entry}{self._signature}."

    def __repr__(self) -> str:
        return f"<Kernel {self._shader.label}: {self._shader.entry}{self._signature}>"

    @property
    def constants(self) -> Mapping[str, float]:
        """The override constants that were set."""
        return MappingProxyType(self._constants)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The names of the source's override constants."""
        return self._shader.overrides

    @property
    def bindings(self) -> tuple[str, ...]:
        """The names of the bindings, in numerical order."""
        return tuple(binding.name for binding in self._shader.bindings)

    def dtype(self, binding: str) -> np.dtype[Any]:
        """Return the numpy dtype of a binding's element; for a struct with its members at WGSL's
        offsets.

        InputError for an unknown binding, and for a struct without a fixed size.
        """
        for each in self._shader.bindings:
            if each.name == binding:
                return dtype_of(each.type.element if isinstance(each.type, ArrayOf) else each.type)
        hint = f"The bindings are {', '.join(self.bindings)}."
        raise InputError(f"{self._shader.label}, dtype", "a binding", repr(binding), hint=hint)

    async def __call__(
        self, *arguments: Any, out: Any = None, count: Any = None, groups: Any = None, **named: Any
    ) -> Any:
        """Run, or in a block of `device.record()` record; see `Kernel`.

        InputError for arguments that do not fit, LimitError for what the device cannot hold or
        launch, ShaderError for a source that does not compile, WrongResultError if the outputs
        differ from the reference's, TierUnavailableError on a tier without shaders and no
        reference.
        """
        call = self._signature.bind(arguments, out, count, groups, named)
        recording = RECORDING.get()
        await self._device.ready(self._shader.label)
        await need_numpy(self._shader.label, "Load numpy into this Pyodide first.")
        pool = self._device.pool
        if recording is not None and recording.pool is not pool:
            raise InputError(self._shader.label, "a kernel of the recording's device", "another")
        async with pool.backend.turns.turn():
            pool.sweep()
            operands = operands_of(self._signature.storage, call.storage, pool, self._shader.label)
            try:
                if recording is None:
                    await self._run(call, operands)
                else:
                    await self._record(recording, call, operands)
            finally:
                if recording is None:
                    operands.close()
        results = [operands.found[name].result for name in call.outputs]
        return results[0] if len(results) == 1 else tuple(results) or None

    async def compile(self) -> None:
        """Compile now instead of at the first call; does nothing on a tier without shaders.

        ShaderError with line and column if the source does not compile.
        """
        await self._device.ready(self._shader.label)
        backend = self._device.pool.backend
        if isinstance(backend, WebGpuBackend):
            async with backend.turns.turn():
                await self._ready(backend.gpu)

    async def autotune(
        self,
        *arguments: Any,
        over: Mapping[str, Sequence[float]],
        out: Any = None,
        count: Any = None,
        groups: Any = None,
        **named: Any,
    ) -> Tuning:
        """Choose the override constants that are fastest for such arguments here, and use them from
        now on.

        Every combination of `over` computes the same numbers as the first, or is rejected; the
        choice is remembered for this adapter. Outputs are unchanged. On a tier without shaders
        nothing is measured. Errors as a call's; the first rejection if none works.
        """
        listed = candidates(over, self._shader.label)
        for each in listed:
            self._shader.pipeline_constants({**self._constants, **each})
        call = self._signature.bind(arguments, out, count, groups, named)
        await self._device.ready(self._shader.label)
        pool = self._device.pool
        backend = pool.backend
        if not isinstance(backend, WebGpuBackend):
            return Tuning(self.constants)
        async with backend.turns.turn():
            operands = operands_of(self._signature.storage, call.storage, pool, self._shader.label)
            try:
                sizes = [[o.nbytes for o in operands.found.values()], call.count, call.groups]
                key = tuning_key(self._shader.wgsl, self._shader.entry, listed, sizes)
                chosen = await recalled(backend.choices, backend.adapter, key, listed)
                if chosen is not None:
                    self._take(chosen)
                    return Tuning(self.constants, remembered=True)
                result = await self._measured(backend.gpu, listed, call, operands)
            finally:
                operands.close()
        self._take(dict(result.constants))
        await remember(backend.choices, backend.adapter, key, dict(result.constants))
        return replace(result, constants=self.constants)

    def _take(self, constants: Mapping[str, float]) -> None:
        self._constants |= {name: float(value) for name, value in constants.items()}
        self.close()

    async def _measured(
        self, gpu: Gpu, listed: Sequence[Mapping[str, float]], call: Call, operands: Operands
    ) -> Tuning:
        """Run and time each candidate; raises the first rejection if all are rejected."""
        times: list[tuple[Mapping[str, float], float]] = []
        refused: list[tuple[Mapping[str, float], str]] = []
        errors: list[BasculeError] = []
        before = await outputs_of(operands)
        expected: dict[str, Array] | None = None
        for constants in listed:
            compiled: CompiledShader | None = None
            try:
                merged = {**self._constants, **constants}
                compiled = await CompiledShader.make(gpu, self._shader, merged)
                launch = await self._launch_of(gpu, compiled, call, operands)
                launch.shader.run(launch)
                result = await outputs_of(operands)
                check_equal(self._shader.label, expected or result, result)
                expected = expected or result
                times.append((constants, await timed(launch)))
            except DeviceLostError:
                raise
            except (GpuError, LimitError) as error:
                errors.append(error)
                refused.append((constants, error.what))
            finally:
                restore_outputs(operands, before)
                if compiled is not None:
                    compiled.close()
        if not times:
            raise errors[0]
        fastest = min(times, key=lambda pair: pair[1])[0]
        return Tuning(fastest, times, refused)

    def close(self) -> None:
        """Free the compiled shader; a later call compiles again."""
        compiled, self._compiled = self._compiled, None
        if compiled is not None:
            self._device.pool.backend.turns.when_free(compiled.close)

    async def _run(self, call: Call, operands: Operands) -> None:
        """Compute, and fill the caller's arrays."""
        backend = self._device.pool.backend
        if not isinstance(backend, WebGpuBackend):
            await self._serve(call, operands)
        else:
            launch = await self._launch(backend.gpu, call, operands)
            if self._reference is None or launch.shader is self._proven or launch.is_empty:
                launch.shader.run(launch)
            else:
                await self._prove(self._reference, launch, call, operands)
        await all_or_first_error([operand.fetch() for operand in operands.outputs])

    async def _record(self, recording: Recording, call: Call, operands: Operands) -> None:
        """Add the call to a recording, which holds its operands from now on."""
        if any(operand.array is not None for operand in operands.outputs):
            operands.close()
            hint = "Give a buffer or a shape, and read it after tape.run()."
            raise InputError(self._shader.label, "outputs that are buffers", "an array", hint=hint)
        backend = self._device.pool.backend
        try:
            if isinstance(backend, WebGpuBackend):
                step = await self._launch(backend.gpu, call, operands)
            else:
                step = partial(self._serve, call, operands)
        except BaseException:
            operands.close()
            raise
        recording.add(step, operands, self)

    async def _launch(self, gpu: Gpu, call: Call, operands: Operands) -> Launch:
        """Return the call as a dispatch, compiled and within the device's limits."""
        return await self._launch_of(gpu, await self._ready(gpu), call, operands)

    async def _launch_of(
        self, gpu: Gpu, compiled: CompiledShader, call: Call, operands: Operands
    ) -> Launch:
        max_groups = gpu.adapter.limits["maxComputeWorkgroupsPerDimension"]
        groups = groups_for(self._shader, compiled.constants, call.count, call.groups, max_groups)
        storage: list[tuple[int, int, int, int]] = []
        for name, operand in operands.found.items():
            buffer, _ = buffer_of(operand.buffer._store)
            index = operands.found[name].binding.index
            storage.append((index, buffer, 0, rounded(operand.nbytes, 4)))
        await grant_large(gpu, ((buffer, nbytes) for _, buffer, _, nbytes in storage))
        return Launch(compiled, tuple(storage), compiled.uniform_block(call.uniforms), groups)

    async def _ready(self, gpu: Gpu) -> CompiledShader:
        """Return the compiled shader on that device."""
        async with self._preparing.turn():
            if self._compiled is None or self._compiled.gpu is not gpu or self._compiled.closed:
                compiled = await CompiledShader.make(gpu, self._shader, self._constants)
                self._device.pool.when_dropped(self, compiled)
                self._compiled = compiled
            return self._compiled

    async def _prove(
        self, reference: Reference, launch: Launch, call: Call, operands: Operands
    ) -> None:
        """Run twice, each time from the same outputs, and compare with the reference.

        The second run has the same bindings as the first: some drivers are right only the first
        time.
        """
        before = await outputs_of(operands)
        expected = await reference.outputs(call, operands.found)
        for _ in range(2):
            restore_outputs(operands, before)
            launch.shader.run(launch)
            result = await outputs_of(operands)
            check_equal(self._shader.label, expected, result)
        self._proven = launch.shader

    async def _serve(self, call: Call, operands: Operands) -> None:
        """Compute with the reference, on a tier without shaders."""
        tier = self._device.pool.backend.tier
        if self._reference is None:
            raise no_shaders(tier, self._shader.label)
        max_groups = DEFAULT_LIMITS["maxComputeWorkgroupsPerDimension"]
        if all(groups_for(self._shader, self._constants, call.count, call.groups, max_groups)):
            await self._reference.serve(call, operands.found)


def no_shaders(tier: str, label: str) -> TierUnavailableError:
    """Return the error of a kernel without a reference, on a tier without shaders."""
    problem = f"it runs no shaders, and {label} has no reference"
    hint = "Give the kernel reference=, a numpy function that computes the same."
    return TierUnavailableError(tier, problem, hint=hint)
