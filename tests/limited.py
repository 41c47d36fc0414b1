"""A real device that holds less than it could: what is larger than its limit it refuses."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from bascule.backend.memory import MemoryKind, MemoryUse
from bascule.backend.webgpu.gpu import AdapterInfo, Gpu
from bascule.errors import GpuError


class LimitedGpu:
    """Implements `Gpu` on another one, whose adapter it shows with the limits that it enforces.

    A storage buffer or binding of more than `binding_nbytes` is refused, as a device does whose
    limits are these. Uniform buffers, whose size the number of calls makes, are let be.
    `largest_nbytes` is the largest storage binding that was recorded.
    """

    def __init__(self, gpu: Gpu, binding_nbytes: int) -> None:
        result = {"maxStorageBufferBindingSize": binding_nbytes, "maxBufferSize": binding_nbytes}
        self.adapter: AdapterInfo = replace(gpu.adapter, limits={**gpu.adapter.limits, **result})
        self.largest_nbytes = 0
        self._gpu = gpu
        self._max = binding_nbytes
        self._uniforms: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gpu, name)

    @property
    def lost(self) -> str:
        return self._gpu.lost

    @property
    def allocated_nbytes(self) -> int:
        return self._gpu.allocated_nbytes

    @property
    def crossings(self) -> int:
        return self._gpu.crossings

    @property
    def n_objects(self) -> int:
        return self._gpu.n_objects

    @property
    def n_early_pipelines(self) -> int:
        return self._gpu.n_early_pipelines

    @property
    def memory(self) -> MemoryUse:
        return self._gpu.memory

    def alloc(self, nbytes: int, *, uniform: bool = False, kind: MemoryKind = "programs") -> int:
        if not uniform and nbytes > self._max:
            raise GpuError("alloc", f"{nbytes:,} bytes, and this device allows {self._max:,}.")
        made = self._gpu.alloc(nbytes, uniform=uniform, kind=kind)
        if uniform:
            self._uniforms.add(made)
        return made

    def free(self, buffer: int) -> None:
        self._uniforms.discard(buffer)
        self._gpu.free(buffer)

    def write(self, buffer: int, offset: int, data: Any) -> None:
        self._gpu.write(buffer, offset, data)

    def read(self, buffer: int, offset: int, into: Any) -> Awaitable[None]:
        return self._gpu.read(buffer, offset, into)

    def done(self) -> Awaitable[None]:
        return self._gpu.done()

    async def pipeline(
        self, wgsl: str, constants: Mapping[str, float], bindings: str, label: str
    ) -> int:
        return await self._gpu.pipeline(wgsl, constants, bindings, label)

    def record(self, words: array[int]) -> int:
        at = 2
        for _ in range(words[0]):
            end = at + 2 + 4 * words[at + 1]
            for entry in range(at + 2, end, 4):
                if words[entry + 1] not in self._uniforms:
                    self._check_binding(4 * words[entry + 3])
            at = end
        return self._gpu.record(words)

    def forget(self, tape: int) -> None:
        self._gpu.forget(tape)

    def replay(self, tape: int, writes: Any = b"") -> None:
        self._gpu.replay(tape, writes)

    def destroy(self) -> None:
        self._gpu.destroy()

    def _check_binding(self, nbytes: int) -> None:
        if nbytes > self._max:
            result = f"a binding of {nbytes:,} bytes, and this device allows {self._max:,}."
            raise GpuError("record", result)
        self.largest_nbytes = max(self.largest_nbytes, nbytes)
