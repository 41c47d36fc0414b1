"""Quantize arrays, on the GPU if there is one, and report the error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

from bascule.backend.base import Backend
from bascule.backend.quantize import ErrorSums
from bascule.base.arrays import ArrayLike, NDArray, np
from bascule.base.closing import Closing
from bascule.base.dtypes import BlockType, DType
from bascule.base.progress import Progress, ProgressCallback
from bascule.compat.own_device import OwnDevice
from bascule.device.device import Device, open_device
from bascule.errors import InputError
from bascule.program.blocks import dequantize
from bascule.program.program import Parameter
from bascule.weights.quantized import SLAB_BLOCKS, TensorReport, format_of, report_of
from bascule.weights.slabs import quantize_slabs, read_blocks, staging_nbytes


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A tensor in ggml's blocks: `data` are their bytes, uint8 (n,), `report` has their error."""

    shape: tuple[int, ...]
    format: DType
    data: NDArray[np.uint8]
    report: TensorReport

    def dequantize(self) -> NDArray[np.float32]:
        """Return the numbers of the blocks as float32."""
        count = self.report.n_elements
        return dequantize(BlockType[self.format.upper()], self.data, count).reshape(self.shape)


class WebGPUQuantizer(Closing):
    """Quantizes float arrays to 4 or 8 bits, or float16, in slabs of a few MiB.

    `bits` is 4 or 8; `format` chooses the blocks ("q4_0", "q4_1" or "q8_0"; by default those with
    the smallest error), or "f16". Runs on `tier`, opened at first use, or on an open `device`,
    which stays open. Close it, or use it in `async with`. `bascule.load(..., quantize=)` does this
    to a model's weights while they load.
    """

    def __init__(
        self,
        bits: int | None = None,
        format: str | None = None,
        *,
        tier: str = "auto",
        device: Device | None = None,
    ) -> None:
        chosen = format_of(format if format is not None else 4 if bits is None else bits)
        assert chosen is not None  # neither None nor anything else that format_of gives None for
        self.format: DType = chosen
        self.bits = 16 if chosen == "f16" else int(chosen[1])
        if bits not in (None, self.bits):
            raise InputError("WebGPUQuantizer", f"a format of {bits} bits", repr(format))
        self._device = OwnDevice(device, partial(open_device, tier))
        self._closed = False

    @overload
    async def quantize(
        self, tensors: ArrayLike, *, progress: ProgressCallback | None = None
    ) -> QuantizedTensor: ...

    @overload
    async def quantize(
        self, tensors: Mapping[str, ArrayLike], *, progress: ProgressCallback | None = None
    ) -> dict[str, QuantizedTensor]: ...

    async def quantize(self, tensors: Any, *, progress: ProgressCallback | None = None) -> Any:
        """Quantize an array, or several by name, one after the other.

        Rows (the last axis) must be a multiple of 32 long. `progress` counts numbers. InputError
        for anything else, and for numbers that are not finite or too large for the format.
        Cancelling stops between two slabs.
        """
        named = tensors if isinstance(tensors, Mapping) else {"": tensors}
        arrays = {str(name): _checked(str(name), array) for name, array in named.items()}
        total, results, done = sum(a.size for a in arrays.values()), dict[str, QuantizedTensor](), 0
        backend = (await self._open()).backend
        for name, array in arrays.items():
            shape = (array.size // array.shape[-1], array.shape[-1])
            parameter = Parameter(name, shape, (name,), dtype=self.format)

            def notify(count: int, done: int = done) -> None:
                if progress is not None:
                    progress(Progress("quantize", done + count, total, "numbers"))

            async with backend.turns.turn():
                data, sums = await _quantized(backend, parameter, array, notify)
            _check_fits(name, sums, self.format)
            results[name] = QuantizedTensor(
                array.shape, self.format, data, report_of(parameter, sums)
            )
            done += array.size
        return results if isinstance(tensors, Mapping) else results[""]

    def close(self) -> None:
        """Close the tier that was opened here. Closing twice is fine."""
        self._closed = True
        self._device.close()

    async def _open(self) -> Device:
        if self._closed:
            raise InputError("quantize", "an open quantizer", "one that was closed")
        device = await self._device.get()
        device.check_open("quantize")
        return device


async def _quantized(
    backend: Backend, parameter: Parameter, array: NDArray[Any], notify: Callable[[int], None]
) -> tuple[NDArray[np.uint8], ErrorSums]:
    """Return the blocks of an array, and their errors; `notify` gets the elements done."""
    store = backend.store([parameter])
    try:
        staging = staging_nbytes([parameter], backend.limits.binding_nbytes)
        quantizer = await backend.quantizer(
            store, [parameter], staging_nbytes=staging, max_blocks=SLAB_BLOCKS
        )
        try:
            slabs = quantize_slabs(quantizer, parameter, array, staging, backend.done)
            async for count in slabs:
                notify(count)
            data = await read_blocks(quantizer, parameter)
            return data, (await quantizer.sums())[parameter.name]
        finally:
            quantizer.close()
    finally:
        store.close()


def _checked(name: str, array: Any) -> NDArray[Any]:
    result = np.asarray(array)
    where = f"quantize: tensor {name!r}" if name else "quantize"
    if result.dtype.kind != "f":
        raise InputError(where, "an array of floats", f"dtype {result.dtype}")
    if not result.ndim or not result.size or result.shape[-1] % 32:
        raise InputError(where, "rows of a multiple of 32 numbers", f"shape {result.shape}")
    return result


def _check_fits(name: str, sums: ErrorSums, format: DType) -> None:
    if sums.n_unfit:
        where = f"quantize: tensor {name!r}" if name else "quantize"
        result = f"{sums.n_unfit:,} others"
        raise InputError(where, f"finite numbers that fit {format}", result)
