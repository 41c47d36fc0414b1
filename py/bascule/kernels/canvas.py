"""Canvas: pictures that a device draws, in a page without reading them back."""

# pyright: reportPrivateUsage=false
# It uses the private parts of buffers.

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from bascule.base import assets
from bascule.base.arguments import described, whole_number
from bascule.base.arrays import Array, need_numpy, np
from bascule.errors import DeviceLostError, InputError
from bascule.kernels.buffer import BufferPool, DeviceBuffer
from bascule.kernels.kernel import Kernel
from bascule.kernels.kernel_device import KernelDevice
from bascule.kernels.shader import Shader

if TYPE_CHECKING:
    from bascule.kernels.screen_browser import Screen

_FILE = "shaders/user/pixels.wgsl"
_MAX = 8192  # texels of a side that every WebGPU device grants
_ROW_WORDS = 64  # a row of a texture in a buffer has a multiple of 256 bytes
_OPAQUE = 0xFF000000
_EXPECTED = (
    "{height} rows of {width} pixels: float32 from 0 to 1 (one, three or four a pixel), or uint32"
    " (one a pixel, red in the lowest byte)"
)


class Canvas:
    """A picture of `width` times `height` pixels: `await canvas.draw(image)`.

    `device.canvas` makes one. In a page it fills a canvas element, or an `OffscreenCanvas` in a
    worker: directly from the device's memory if the tier is WebGPU (`way` is "copy"), otherwise,
    and on Chromium's SwiftShader, through the page's memory ("pixels"). Without such a `target` it
    keeps the last picture.
    """

    def __init__(self, device: KernelDevice, width: int, height: int, target: Any = None) -> None:
        self.width = whole_number("canvas, width", width, 1, _MAX)
        self.height = whole_number("canvas, height", height, 1, _MAX)
        self._pitch = -(-self.width // _ROW_WORDS) * _ROW_WORDS
        self._device = device
        text = assets.text(_FILE)
        self._shades = Kernel(device, Shader(text, "shades", _FILE), {}, _words_of_shades)
        self._words = Kernel(device, Shader(text, "words", _FILE), {}, _words_of_words)
        self._pixels: DeviceBuffer | None = None
        self._drawn_on: BufferPool | None = None
        self._screen: Screen | None = None
        self._target: Any = None
        self._take(target)

    def __repr__(self) -> str:
        return f"<Canvas {self.width} x {self.height}, {self.way or 'not shown'}>"

    @property
    def way(self) -> str:
        """How the last picture was shown: "copy" on the device, "pixels", or "" if not."""
        return self._screen.way if self._screen else ""

    async def draw(self, image: Any) -> None:
        """Draw a `DeviceBuffer` or an array: (height, width) float32 grey, from 0, black, to 1;
        (height, width, 3 or 4) red, green, blue and an ignored one; or (height, width) uint32, red
        in the lowest byte, then green and blue. NaN is black.

        InputError for another shape or dtype, and for a target that others draw on. DeviceLostError
        for a buffer whose device was lost.
        """
        kernel, operands = self._operands(image)
        await self._device.ready("canvas")
        pool = self._device.pool
        out: Any = self._pixels
        if self._drawn_on is not pool:
            await need_numpy("canvas", "Load numpy into this Pyodide first.")
            self._screen, self._drawn_on = None, pool
            out = (self.height, self._pitch)
        sizes = {"width": self.width, "height": self.height, "pitch": self._pitch}
        count = (self._pitch, self.height)
        self._pixels = await kernel(**operands, **sizes, out=out, count=count)
        await self._show()

    async def attach(self, target: Any) -> None:
        """Draw on this canvas element or `OffscreenCanvas` from now on, starting with the last
        picture if the device is still open.

        InputError for anything else.
        """
        self._take(target)
        pool = self._device.pool
        if pool.closed:
            return
        try:
            await self._show()
        except DeviceLostError:
            if not pool.closed:
                raise

    async def pixels(self) -> Array:
        """Return the last picture: red, green and blue, uint8 (height, width, 3).

        InputError if there is none.
        """
        if self._pixels is None:
            raise InputError("canvas.pixels", "a picture that was drawn", "none")
        words = await self._pixels.numpy()
        blue_first = words.view(np.uint8).reshape(self.height, self._pitch, 4)
        return np.ascontiguousarray(blue_first[:, : self.width, 2::-1])

    async def next_frame(self) -> None:
        """Wait for the browser's next frame; outside a page until other tasks have run."""
        if sys.platform == "emscripten":
            from bascule.kernels.screen_browser import next_frame

            await next_frame()
            return
        await asyncio.sleep(0)

    def _operands(self, image: Any) -> tuple[Kernel, dict[str, Any]]:
        expected = _EXPECTED.format(height=self.height, width=self.width)
        shape, dtype = getattr(image, "shape", None), str(getattr(image, "dtype", ""))
        if shape is None or not dtype:
            raise InputError("canvas.draw", expected, described(image))
        buffer = image if isinstance(image, DeviceBuffer) else None
        size = (self.height, self.width)
        if dtype == "uint32" and tuple(shape) == size:
            return self._words, {"packed": buffer or np.asarray(image), "channels": 1}
        if dtype != "float32" or tuple(shape) not in (size, (*size, 3), (*size, 4)):
            raise InputError("canvas.draw", expected, f"{dtype} {tuple(shape)}")
        channels = 1 if len(shape) == 2 else shape[2]
        return self._shades, {"image": buffer or np.asarray(image), "channels": channels}

    def _take(self, target: Any) -> None:
        if target is not None and not callable(getattr(target, "getContext", None)):
            expected = "a canvas element or an OffscreenCanvas of the page"
            raise InputError("canvas, target", expected, described(target))
        self._target, self._screen = target, None

    async def _show(self) -> None:
        if self._target is None or self._pixels is None:
            return
        from bascule.kernels.screen_browser import screen_on

        pool, pixels = self._device.pool, self._pixels
        if self._screen is None:
            size = (self.width, self.height, self._pitch)
            self._screen = await screen_on(self._target, pool.backend, *size)
        async with pool.backend.turns.turn():
            await self._screen.show(pixels, self._target)


def _words_of_shades(image: Array, width: int, height: int, channels: int, pitch: int) -> Array:
    shades = image.reshape(height, width, channels)[:, :, : min(channels, 3)]
    known = np.where(shades > 0, np.minimum(shades, np.float32(1)), np.float32(0))
    levels = np.rint(np.float32(255) * known).astype(np.uint32)
    red, green, blue = (levels[:, :, min(at, levels.shape[2] - 1)] for at in range(3))
    return _padded(_OPAQUE | red << 16 | green << 8 | blue, pitch)


def _words_of_words(packed: Array, width: int, height: int, pitch: int) -> Array:
    pixels = packed.reshape(height, width)
    swapped = (pixels & 0xFF) << 16 | (pixels & 0xFF00) | (pixels >> 16 & 0xFF)
    return _padded(_OPAQUE | swapped, pitch)


def _padded(words: Array, pitch: int) -> Array:
    return np.pad(words.astype(np.uint32), ((0, 0), (0, pitch - words.shape[1])))
