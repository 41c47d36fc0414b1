"""Compiled pipelines of one device, each made once, missing ones all at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from functools import partial

from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernels import Kernel


class Pipelines:
    """Pipelines by kernel key. A pipeline that fails is tried again by the next `ensure`."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._making: dict[Hashable, asyncio.Task[int]] = {}

    def __len__(self) -> int:
        return len(self._making)

    async def ensure(self, kernels: Sequence[Kernel]) -> None:
        """Compile what is missing, concurrently; raises the first ShaderError."""
        for kernel in kernels:
            if kernel.key not in self._making:
                task = self._making[kernel.key] = asyncio.ensure_future(self._make(kernel))
                task.add_done_callback(partial(self._drop_failed, kernel.key))
        wanted = {kernel.key: self._making[kernel.key] for kernel in kernels}
        # Shielded: others may wait for the same pipeline when one caller is cancelled.
        await asyncio.gather(*(asyncio.shield(task) for task in wanted.values()))

    def _drop_failed(self, key: Hashable, task: asyncio.Task[int]) -> None:
        if task.cancelled() or task.exception() is not None:
            del self._making[key]

    def handle(self, kernel: Kernel) -> int:
        """The handle of a pipeline that `ensure` has made."""
        return self._making[kernel.key].result()

    async def _make(self, kernel: Kernel) -> int:
        return await self._gpu.pipeline(
            kernel.wgsl, kernel.constants, kernel.bindings, kernel.label
        )
