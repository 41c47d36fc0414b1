"""What image models share: decoding, passes of a few images, retries, counters."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from bascule.backend.base import Executable
from bascule.base.arguments import whole_number
from bascule.base.arrays import Array, need_numpy, np
from bascule.base.turns import CrossLoopLock
from bascule.errors import NotFiniteError
from bascule.program.program import Program
from bascule.tasks.loaded import DEVICE_ERRORS, NO_MEMORY, LoadedModel
from bascule.vision.decoding import listed_images, pixels_of
from bascule.vision.processing import ImageProcessing

# Images per pass, each with its own program; a batch is divided into these, without padding.
BATCHES = (8, 4, 2, 1)
ImageProgress: TypeAlias = Callable[[int, int], None]


class ImageSettings(Protocol):
    """The settings that determine a model's passes over images."""

    @property
    def processing(self) -> ImageProcessing:
        """How an image is processed before a pass."""
        ...

    @property
    def image_places(self) -> int:
        """Positions of an image: T."""
        ...

    def image_program(self, batch: int) -> Program:
        """Record a pass: pixels (B, S, S, 3), lengths (B), first (B, 1) -> rows."""
        ...


@dataclass(slots=True)
class _ImageCounts:
    images: int = 0
    passes: int = 0
    decode_s: float = 0.0
    busy_s: float = 0.0
    memory_retries: int = 0


class ImageRuns(LoadedModel):
    """A mixin for passes over images."""

    def __init__(self, image_settings: ImageSettings, *args: Any, **options: Any) -> None:
        self._image_settings = image_settings
        self._image_passes: dict[int, Executable] = {}
        self._image_lock = CrossLoopLock()
        self._image_counts = _ImageCounts()
        super().__init__(*args, **options)

    async def _image_rows(
        self,
        verb: str,
        images: object,
        batch_size: int | None,
        progress: ImageProgress | None,
    ) -> list[Array]:
        """Return each output of the passes, (n, width) float32, in the order of the images."""
        self._check_open(verb)
        await need_numpy(f"{verb}()", "Images are arrays.")
        max_batch = BATCHES[0]
        if batch_size is not None:
            max_batch = min(max_batch, whole_number("batch_size", batch_size, 1))
        listed = listed_images(f"{verb}, images", images)
        started = perf_counter()
        parts: list[list[Array]] = []
        done = 0
        for size in _sizes(len(listed), max_batch):
            seen = [
                await self._seen(f"{verb}, images[{at}]", listed[at])
                for at in range(done, done + size)
            ]
            await self._pause_under_pressure()
            async with self._device.turn():
                with self._while_open():
                    parts.append(await self._retried_images(np.stack(seen), done))
            done += size
            if progress is not None:
                progress(done, len(listed))
        self._image_counts.images += len(listed)
        self._image_counts.busy_s += perf_counter() - started
        if not parts:
            widths = [value.limits[-1] for value in self._image_settings.image_program(1).outputs]
            return [np.zeros((0, width), np.float32) for width in widths]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    async def _seen(self, where: str, image: Any) -> Array:
        """Return an image's processed pixels; other tasks run before each."""
        await asyncio.sleep(0)
        began = perf_counter()
        result = self._image_settings.processing.apply(pixels_of(where, image), where)
        self._image_counts.decode_s += perf_counter() - began
        return result

    async def _retried_images(self, pixels: Array, first: int) -> list[Array]:
        """Run a pass; if memory runs out, image by image."""
        backend = self.backend
        try:
            return await self._run_images(pixels, first)
        except DEVICE_ERRORS as lost:
            await self.revive(lost, backend)
        except NO_MEMORY:
            self._image_counts.memory_retries += 1
            self.trim()
            if len(pixels) > 1:
                each = [
                    await self._retried_images(pixels[at : at + 1], first + at)
                    for at in range(len(pixels))
                ]
                return [np.concatenate(column) for column in zip(*each, strict=True)]
        return await self._run_images(pixels, first)

    async def _run_images(self, pixels: Array, first: int) -> list[Array]:
        count = len(pixels)
        executable = await self._image_pass(count)
        inputs = {
            "pixels": np.ascontiguousarray(pixels, np.float32),
            "lengths": np.full(count, self._image_settings.image_places, np.uint32),
            "first": np.zeros((count, 1), np.uint32),
            "skipped": np.ones(count, np.uint32),
        }
        result = await executable.run({}, inputs)
        self._image_counts.passes += 1
        rows = [np.asarray(value, np.float32).reshape(count, -1) for value in result.values()]
        for row in range(count):
            if not all(np.isfinite(value[row]).all() for value in rows):
                raise NotFiniteError(self.name, f"the results of image {first + row}", self.tier)
        return rows

    async def _image_pass(self, batch: int) -> Executable:
        async with self._image_lock.turn():
            result = self._image_passes.get(batch)
            if result is None:
                program = self._fitting.fit(self._image_settings.image_program(batch))
                result = await self._backend.prepare(program, self.weights)
                self._image_passes[batch] = result
            return result

    def _close_programs(self) -> None:
        super()._close_programs()
        self._close_image_passes()

    def _trim_programs(self) -> None:
        super()._trim_programs()
        self._close_image_passes()

    def _close_image_passes(self) -> None:
        for executable in self._image_passes.values():
            executable.close()
        self._image_passes.clear()

    @property
    def _image_stats(self) -> dict[str, float]:
        counts = self._image_counts
        return {
            "images": counts.images,
            "image_passes": counts.passes,
            "image_decode_ms": 1e3 * counts.decode_s,
            "image_ms": 1e3 * counts.busy_s,
            "image_memory_retries": counts.memory_retries,
        }


def _sizes(count: int, max_batch: int) -> Sequence[int]:
    """Return sizes of passes that add up to `count`."""
    result = array("I")
    for size in BATCHES:
        while size <= max_batch and count >= size:
            result.append(size)
            count -= size
    return result.tolist()
