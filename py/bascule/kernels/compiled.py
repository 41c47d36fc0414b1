"""Compiled shaders and launches: from WGSL source to dispatches on a tape.

The low level: integers and bytes, no arrays. `CompiledShader.make` compiles, a `Launch` holds the
bindings of one dispatch, and `run` queues launches in one submission.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bascule.backend.webgpu.gpu import Gpu, pack_writes
from bascule.backend.webgpu.tape import Binding, TapeBuilder
from bascule.errors import LimitError, ShaderError
from bascule.kernels.shader import Groups, Shader
from bascule.kernels.wgsl_types import rounded

_MAX_TAPES = 8  # launches of a shader that stay recorded


@dataclass(frozen=True, slots=True)
class Launch:
    """One dispatch: storage as (binding, buffer, offset, nbytes), and the uniform block."""

    shader: CompiledShader
    storage: tuple[Binding, ...]
    uniforms: bytes
    groups: Groups

    @property
    def is_empty(self) -> bool:
        """Whether it has no workgroups."""
        return not all(self.groups)


class CompiledShader:
    """A shader on one device with its constants. Close it to free its pipeline."""

    def __init__(
        self, gpu: Gpu, shader: Shader, constants: Mapping[str, float], pipeline: int
    ) -> None:
        self.gpu = gpu
        self.shader = shader
        self.constants = dict(constants)
        self.pipeline = pipeline
        self._stride = max(256, gpu.adapter.limits["minUniformBufferOffsetAlignment"])
        self._uniforms = [b for b in shader.bindings if b.access == "uniform"]
        self._buffer = 0
        self._tapes: OrderedDict[object, int] = OrderedDict()
        self.closed = False

    @classmethod
    async def make(cls, gpu: Gpu, shader: Shader, constants: Mapping[str, float]) -> CompiledShader:
        """Compile; ShaderError with the source's own line and column, LimitError for more storage
        buffers than the device can bind.
        """
        max_storage = gpu.adapter.limits["maxStorageBuffersPerShaderStage"]
        n_storage = sum(b.access != "uniform" for b in shader.bindings)
        if n_storage > max_storage:
            raise LimitError(
                shader.label, f"{n_storage} storage buffers", f"{max_storage} may be bound"
            )
        overrides = shader.pipeline_constants(constants)
        _check_workgroup(shader, constants, gpu.adapter.limits)
        try:
            pipeline = await gpu.pipeline(
                shader.wgsl, overrides, shader.letters, shader.label, shader.entry
            )
        except ShaderError as error:
            raise shader.placed(error) from None
        return cls(gpu, shader, constants, pipeline)

    @property
    def uniform_nbytes(self) -> int:
        """Bytes of the uniform block of one launch."""
        return sum(rounded(b.type.nbytes, self._stride) for b in self._uniforms)

    def uniform_block(self, values: Mapping[str, bytes]) -> bytes:
        """Return the uniform block of the packed values of each uniform binding."""
        blocks = (values[b.name].ljust(rounded(b.type.nbytes, self._stride), b"\0")
                  for b in self._uniforms)  # fmt: skip
        return b"".join(blocks)

    def uniform_bindings(self, buffer: int, at: int) -> list[Binding]:
        """Return the bindings of a uniform block at that offset of a buffer."""
        results: list[Binding] = []
        for binding in self._uniforms:
            results.append((binding.index, buffer, at, rounded(binding.type.nbytes, 16)))
            at += rounded(binding.type.nbytes, self._stride)
        return results

    def run(self, launch: Launch) -> None:
        """Queue one launch; one that ran before with the same buffers is replayed."""
        if launch.is_empty:
            return
        if self._uniforms and not self._buffer:
            self._buffer = self.gpu.alloc(self.uniform_nbytes, uniform=True)
        writes = [(self._buffer, 0, launch.uniforms)] if self._uniforms else []
        self.gpu.replay(self._tape_of(launch), pack_writes(writes))

    def close(self) -> None:
        """Free the pipeline, the tapes and the uniform buffer."""
        if self.closed or self.gpu.lost:
            self.closed = True
            return
        self.closed = True
        while self._tapes:
            self.gpu.forget(self._tapes.popitem()[1])
        if self._buffer:
            self.gpu.free(self._buffer)
        self.gpu.drop_pipeline(self.pipeline)

    def _tape_of(self, launch: Launch) -> int:
        key = launch.storage, launch.groups
        known = self._tapes.get(key)
        if known is None:
            tape = TapeBuilder()
            bindings = [*self.uniform_bindings(self._buffer, 0), *launch.storage]
            tape.dispatch(self.pipeline, bindings, launch.groups)
            known = self._tapes[key] = self.gpu.record(tape.words())
            if len(self._tapes) > _MAX_TAPES:
                self.gpu.forget(self._tapes.popitem(last=False)[1])
        self._tapes.move_to_end(key)
        return known


class RecordedLaunches:
    """Launches in one tape: each run is one call into the driver and one submission."""

    def __init__(self, gpu: Gpu, launches: Sequence[Launch]) -> None:
        self.gpu = gpu
        self._launches = [launch for launch in launches if not launch.is_empty]
        self._tapes: dict[int, int] = {}  # by how many runs it holds
        self._buffer = 0
        nbytes = sum(launch.shader.uniform_nbytes for launch in self._launches)
        if nbytes:
            self._buffer = gpu.alloc(nbytes, uniform=True)
            gpu.write(self._buffer, 0, b"".join(launch.uniforms for launch in self._launches))
        if self._launches:
            self._tape_of(1)

    def run(self, times: int = 1) -> None:
        """Queue all launches, in order, that many times."""
        if self._launches:
            self.gpu.replay(self._tape_of(times))

    def close(self) -> None:
        """Free the tapes and the uniform buffer."""
        while self._tapes and not self.gpu.lost:
            self.gpu.forget(self._tapes.popitem()[1])
        if self._buffer and not self.gpu.lost:
            self.gpu.free(self._buffer)
        self._buffer = 0

    def _tape_of(self, times: int) -> int:
        if times not in self._tapes:
            tape = TapeBuilder()
            for _ in range(times):
                at = 0
                for launch in self._launches:
                    uniforms = launch.shader.uniform_bindings(self._buffer, at)
                    bindings = [*uniforms, *launch.storage]
                    tape.dispatch(launch.shader.pipeline, bindings, launch.groups)
                    at += launch.shader.uniform_nbytes
            self._tapes[times] = self.gpu.record(tape.words())
        return self._tapes[times]


def _check_workgroup(
    shader: Shader, constants: Mapping[str, float], limits: Mapping[str, int]
) -> None:
    """LimitError for a workgroup that is too large: not every compiler checks overrides."""
    size = shader.workgroup_size(constants)
    if size is None:
        return
    max_invocations = limits["maxComputeInvocationsPerWorkgroup"]
    if prod(size) > max_invocations:
        allowed = f"a device runs {max_invocations:,} at once"
        raise LimitError(
            f"A workgroup of {shader.label}",
            f"{prod(size):,} invocations",
            allowed,
            hint="Make its workgroup smaller.",
        )
