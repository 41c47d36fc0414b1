"""States in GPU buffers: what outlives a run, such as a KV cache."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.link import link
from bascule.backend.webgpu.tape import TapeBuilder
from bascule.base.dtypes import nbytes_of
from bascule.errors import GpuError
from bascule.program.program import Value

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.memory import MemoryKind

_LANES = 64
_MAX_WORKGROUPS = 65535


class GpuStates:
    """See `StateStore`. When buffers are replaced, `generation` grows and tapes are outdated."""

    def __init__(
        self,
        gpu: Gpu,
        values: Sequence[Value],
        sizes: Mapping[str, int],
        kind: MemoryKind = "states",
    ) -> None:
        self._gpu = gpu
        self._kind: MemoryKind = kind
        self._values = tuple(values)
        self.generation = 0
        self.targets: dict[str, int] = {}
        self.sizes: dict[str, int] = {}  # bytes
        self._copier: int | None = None
        try:
            for value in self._values:
                nbytes = self._allowed(value, sizes)
                self.targets[value.name] = gpu.alloc(nbytes, kind=kind)
                self.sizes[value.name] = nbytes
        except Exception:
            self.close()
            raise

    @property
    def nbytes(self) -> int:
        return sum(self.sizes.values())

    def write(self, name: str, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        n_aligned = view.nbytes & ~3
        if n_aligned:
            self._gpu.write(self.targets[name], offset, view[:n_aligned])
        if view.nbytes > n_aligned:  # an odd number of f16: a queue writes four bytes at a time
            self._gpu.write(
                self.targets[name], offset + n_aligned, bytes(view[n_aligned:]).ljust(4, b"\0")
            )

    def read(self, name: str, offset: int, into: Buffer) -> Awaitable[None]:
        return self._gpu.read(self.targets[name], offset, into)

    async def resize(self, sizes: Mapping[str, int]) -> None:
        """See `StateStore.resize`: one state after the other, so that only one exists twice.

        If memory runs out, the states before are already larger, and the others unchanged.
        """
        linked = link("copy", (), (), "")
        if self._copier is None:
            constants = {"WORKGROUP": float(_LANES)}
            self._copier = await self._gpu.pipeline(
                linked.wgsl, constants, linked.bindings, "copy.wgsl"
            )
        params = await self._alloc(16, uniform=True)
        try:
            for value in self._values:
                nbytes = self._allowed(value, sizes)
                if nbytes == self.sizes[value.name]:
                    continue
                buffer = await self._alloc(nbytes)
                self.generation += 1
                n_copied = min(nbytes, self.sizes[value.name])
                packed = linked.pack({"n": n_copied // 4})
                self._copy(self._copier, params, packed, value.name, buffer, n_copied)
                self._gpu.free(self.targets[value.name])
                self.targets[value.name], self.sizes[value.name] = buffer, nbytes
        finally:
            if not self._gpu.lost:
                self._gpu.free(params)

    async def _alloc(self, nbytes: int, *, uniform: bool = False) -> int:
        kind: MemoryKind = "programs" if uniform else self._kind
        buffer = self._gpu.alloc(nbytes, uniform=uniform, kind=kind)
        try:
            await self._gpu.granted([buffer])
        except BaseException:
            if not self._gpu.lost:
                self._gpu.free(buffer)
            raise
        return buffer

    def _copy(
        self, pipeline: int, params: int, packed: bytes, name: str, target: int, nbytes: int
    ) -> None:
        self._gpu.write(params, 0, packed)
        groups = -(-nbytes // (4 * _LANES))
        x = min(groups, _MAX_WORKGROUPS)
        tape = TapeBuilder()
        bindings = ((0, params, 0, 16), (1, self.targets[name], 0, nbytes), (2, target, 0, nbytes))
        tape.dispatch(pipeline, bindings, (x, -(-groups // x), 1))
        recorded = self._gpu.record(tape.words())
        self._gpu.replay(recorded)
        self._gpu.forget(recorded)

    def close(self) -> None:
        for buffer in self.targets.values():
            if not self._gpu.lost:
                self._gpu.free(buffer)
        self.targets.clear()
        self.sizes.clear()

    def _allowed(self, value: Value, sizes: Mapping[str, int]) -> int:
        nbytes = nbytes_of(value.dtype, prod(value.sizes(sizes)))
        limit = self._gpu.adapter.limits["maxStorageBufferBindingSize"]
        if nbytes > limit:
            raise GpuError(
                "alloc",
                f"{value.name} needs a binding of {nbytes:,} bytes, and this device allows "
                f"{limit:,}.",
                hint='Use a shorter context, or tier="cpu".',
            )
        return nbytes
