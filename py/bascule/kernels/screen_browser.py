"""Show pictures on canvases of a page."""

# pyright: reportPrivateUsage=false
# It uses the private parts of buffers.

from __future__ import annotations

from typing import Any, Protocol

from pyodide.ffi import JsException

from bascule.backend.base import Backend
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.computation import buffer_of
from bascule.backend.webgpu.gpu_browser import BrowserGpu
from bascule.base.arrays import np
from bascule.base.bridge_browser import bridge_module, js_message
from bascule.errors import InputError
from bascule.kernels.buffer import DeviceBuffer


class Screen(Protocol):
    """A way to show words on a canvas."""

    way: str

    async def show(self, words: DeviceBuffer, target: Any) -> None:
        """Show the words of a canvas's rows."""
        ...


class _Copied:
    """A `Screen` that copies them on the device."""

    way = "copy"

    def __init__(self, gpu: BrowserGpu, screen: Any) -> None:
        self._gpu = gpu
        self._screen = screen

    async def show(self, words: DeviceBuffer, target: Any) -> None:
        del target
        self._gpu.show(self._screen, buffer_of(words._store)[0])


class _Drawn:
    """A `Screen` that reads them and draws them with a 2D context."""

    way = "pixels"

    def __init__(self, module: Any, width: int, height: int, pitch: int) -> None:
        self._draw = module.draw
        self._size = (width, height, pitch)
        self._words = np.empty((height, pitch), np.uint32)

    async def show(self, words: DeviceBuffer, target: Any) -> None:
        await words._read(self._words)
        try:
            self._draw(target, self._words, *self._size)
        except JsException as error:
            expected = "a canvas that nothing else draws on"
            raise InputError("canvas", expected, js_message(error)) from None


async def screen_on(target: Any, backend: Backend, width: int, height: int, pitch: int) -> Screen:
    """Return the most direct way to show words of that backend on a canvas.

    Chromium takes all devices away from a page that shows a canvas of a SwiftShader device.
    """
    gpu = backend.gpu if isinstance(backend, WebGpuBackend) else None
    if isinstance(gpu, BrowserGpu) and gpu.adapter.architecture != "swiftshader":
        return _Copied(gpu, await gpu.screen(target, width, height))
    return _Drawn(await bridge_module("bridge/screen.js"), width, height, pitch)


async def next_frame() -> None:
    """Wait until the browser draws its next frame."""
    await (await bridge_module("bridge/screen.js")).nextFrame()
