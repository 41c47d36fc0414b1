"""One device for the tests of a file, and each of their pipelines once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bascule.backend.base import DESTROYED
from bascule.backend.webgpu.gpu_native import NativeGpu, open_native


class SharingGpu(NativeGpu):
    """A driver on a device that a test shares with others, and the pipelines that those have made.

    Buffers, tapes, memory and names are its own. Closing it leaves the device.
    """

    def __init__(self, first: NativeGpu, made: dict[Hashable, Any]) -> None:
        super().__init__(first._device, first.adapter)
        self._layouts = first._layouts
        self._made = made

    async def pipeline(
        self,
        wgsl: str,
        constants: Mapping[str, float],
        bindings: str,
        label: str,
        entry: str = "main",
    ) -> int:
        """See `Gpu.pipeline`."""
        self._check_alive()
        key = (wgsl, tuple(sorted(constants.items())), bindings, entry)
        if key in self._made:
            return self._pipelines.add((self._made[key], bindings, label))
        handle = await super().pipeline(wgsl, constants, bindings, label, entry)
        self._made[key] = self._pipelines.get(handle)[0]
        return handle

    def end(self) -> None:
        """Free what the test has left."""
        self.lost = DESTROYED
        for buffer in self._buffers.clear():
            buffer.destroy()
        for kept in self._staging.values():
            for buffer in kept:
                buffer.destroy()


class SharedDevices:
    """A device a tier for the tests of a file, which compile each of their pipelines once."""

    def __init__(self) -> None:
        self._open: dict[bool, tuple[NativeGpu, dict[Hashable, Any]]] = {}

    @asynccontextmanager
    async def gpu(self, *, limited: bool = False) -> AsyncGenerator[NativeGpu]:
        """A driver for one test. If that test loses or closes the device, the next gets another."""
        if limited not in self._open:
            self._open[limited] = await open_native(limited=limited), {}
        gpu = SharingGpu(*self._open[limited])
        try:
            yield gpu
        finally:
            if gpu.lost:
                self._open.pop(limited)[0].destroy()
            gpu.end()

    def close(self) -> None:
        """Close them."""
        for first, _ in self._open.values():
            first.destroy()
        self._open.clear()
