"""The WebGPU tier: waist 1 on top of a driver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import Tier, WeightStore
from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernels import select
from bascule.backend.webgpu.lowering import TapeExecutable, lower
from bascule.backend.webgpu.pipelines import Pipelines

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.program.program import Parameter, Program


class GpuStore:
    """Weights in GPU buffers, one a parameter; a target is a buffer handle."""

    def __init__(self, gpu: Gpu, parameters: Sequence[Parameter]) -> None:
        self._gpu = gpu
        self.page_bridge: Any | None = getattr(gpu, "bridge", None)
        self.targets: dict[str, int] = {}
        self.arrivals: Arrivals | None = None
        self.nbytes = sum(p.nbytes for p in parameters)
        try:
            for parameter in parameters:
                self.targets[parameter.name] = gpu.alloc(parameter.nbytes)
        except Exception:
            self.close()
            raise

    def write(self, target: int, offset: int, data: Buffer) -> None:
        """See `WeightStore.write`."""
        self._gpu.write(target, offset, data)

    def close(self) -> None:
        """See `WeightStore.close`."""
        for buffer in self.targets.values():
            if not self._gpu.lost:
                self._gpu.free(buffer)
        self.targets.clear()


class WebGpuBackend:
    """Runs programs as tapes on a device."""

    tier: Tier = "webgpu"

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.device_name = gpu.adapter.name
        self._pipelines = Pipelines(gpu)

    @property
    def lost(self) -> str:
        """See `Backend.lost`."""
        return self.gpu.lost

    def store(self, parameters: Sequence[Parameter]) -> GpuStore:
        """See `Backend.store`."""
        return GpuStore(self.gpu, parameters)

    async def prepare(self, program: Program, weights: WeightStore) -> TapeExecutable:
        """See `Backend.prepare`."""
        return await lower(self.gpu, self._pipelines, program, weights)

    async def warm(self, programs: Iterable[Program]) -> int:
        """See `Backend.warm`."""
        kernels = {
            k.key: k for p in programs for k in (select(c, self.gpu.adapter) for c in p.calls)
        }
        await self._pipelines.ensure(list(kernels.values()))
        return len(kernels)

    def close(self) -> None:
        """See `Backend.close`."""
        self.gpu.destroy()
