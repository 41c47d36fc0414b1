"""Quantize floats with ggml's rounding, as the gguf package does, and measure the error.

`program/blocks.py` has the layouts and the inverse; shaders/quantize.wgsl does the same on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bascule.backend.base import ErrorSums
from bascule.base.arrays import Buffer, Bytes, Floats, NDArray, np
from bascule.base.dtypes import BLOCKS, BlockType, DType
from bascule.errors import InputError
from bascule.program.blocks import BlockMatrix, dequantize

if TYPE_CHECKING:
    from bascule.backend.arrivals import Arrivals
    from bascule.backend.base import WeightStore

__all__ = ["CONVERTED", "QUANTIZED", "ErrorSums", "ReferenceQuantizer", "quantize"]

# Block formats of fewer bits; and all formats that floats can be quantized to, 32 at a time.
QUANTIZED: tuple[DType, ...] = ("q4_0", "q4_1", "q8_0")
CONVERTED: tuple[DType, ...] = (*QUANTIZED, "f16")
_RUN = 32
# Some devices flush a scale below the smallest normal float32 to 0.
_MIN = 2.0**-126
# Blocks are quantized in runs of this size, small beside any weight.
_RUN_BLOCKS = 1 << 12


def quantize(type: BlockType, values: NDArray[Any]) -> tuple[Bytes, ErrorSums]:
    """Quantize `values`, float32 of any shape, to blocks as uint8 (n,); return them with the
    errors.

    A number that is not finite counts as 0, and a block whose scale (for F16: one of its 32
    numbers) exceeds the largest float16 becomes all 0 bytes: both are counted. InputError unless
    the last axis is a multiple of 32.
    """
    if not values.ndim or values.shape[-1] % _RUN:
        raise InputError("quantize", f"rows of a multiple of {_RUN} numbers", f"{values.shape}")
    rows = values.reshape(-1, _RUN)
    blocks = np.empty((len(rows), _run_nbytes(type)), np.uint8)
    sums = ErrorSums()
    for start in range(0, len(rows), _RUN_BLOCKS):
        part = slice(start, start + _RUN_BLOCKS)
        blocks[part], deviations = _quantize_run(type, rows[part].astype(np.float32, copy=False))
        sums += deviations
    return blocks.reshape(-1), sums


def _quantize_run(type: BlockType, rows: Floats) -> tuple[Bytes, ErrorSums]:
    finite = np.isfinite(rows)
    x = np.where(finite, rows, np.float32(0))
    with np.errstate(over="ignore", invalid="ignore"):
        blocks, scales = _WRITERS[type](x)
    fits = np.isfinite(scales).all(axis=1)
    blocks[~fits] = 0
    exact = x[fits].astype(np.float64)
    error = np.abs(
        exact - dequantize(type, blocks[fits].reshape(-1), exact.size).reshape(exact.shape)
    )
    return blocks, ErrorSums(
        float(np.square(error).sum()),
        float(np.square(exact).sum()),
        int((~finite[fits]).sum()) + int((~fits).sum()) * x.shape[1],
        float(error.max(initial=0)),
    )


def _run_nbytes(type: BlockType) -> int:
    """Bytes of 32 numbers."""
    block = BLOCKS[type]
    return _RUN // block.n_elements * block.nbytes


def _inverse(d: Floats) -> Floats:
    """Return 1 / d; 0 if d is 0 or subnormal."""
    normal = np.abs(d) >= _MIN
    return np.where(normal, 1 / np.where(normal, d, np.float32(1)), np.float32(0))


def _nibbles(q: Bytes) -> Bytes:
    """Pack q of element i (low nibble) and of element i + 16 (high nibble) into byte i."""
    return q[:, :16] | (q[:, 16:] << np.uint8(4))


def _q4_0(x: Floats) -> tuple[Bytes, NDArray[np.float16]]:
    """d * (q - 8); the number furthest from 0 becomes exactly -8."""
    furthest = np.take_along_axis(x, np.abs(x).argmax(axis=1, keepdims=True), axis=1)
    d = furthest / np.float32(-8)
    q = (x * _inverse(d) + np.float32(8.5)).astype(np.uint8).clip(0, 15)
    scale = d.astype(np.float16)
    return np.concatenate((scale.view(np.uint8), _nibbles(q)), axis=1), scale


def _q4_1(x: Floats) -> tuple[Bytes, NDArray[np.float16]]:
    """d * q + m, from the smallest number to the largest."""
    m = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - m) / np.float32(15)
    q = ((x - m) * _inverse(d) + np.float32(0.5)).astype(np.uint8).clip(0, 15)
    scales = np.concatenate((d, m), axis=1).astype(np.float16)
    return np.concatenate((scales.view(np.uint8), _nibbles(q)), axis=1), scales


def _q8_0(x: Floats) -> tuple[Bytes, NDArray[np.float16]]:
    """d * q; the number furthest from 0 becomes 127 or -127; halves round away from 0."""
    d = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    v = x * _inverse(d)
    floor = np.floor(np.abs(v))
    q = np.sign(v) * (floor + np.floor(2 * (np.abs(v) - floor)))
    scale = d.astype(np.float16)
    return np.concatenate((scale.view(np.uint8), q.astype(np.int8).view(np.uint8)), axis=1), scale


def _f16(x: Floats) -> tuple[Bytes, NDArray[np.float16]]:
    """The nearest float16, ties to even; each must be finite."""
    rounded = x.astype(np.float16)
    return rounded.view(np.uint8), rounded


_WRITERS: Mapping[BlockType, Callable[[Floats], tuple[Bytes, NDArray[np.float16]]]] = {
    BlockType.Q4_0: _q4_0,
    BlockType.Q4_1: _q4_1,
    BlockType.Q8_0: _q8_0,
    BlockType.F16: _f16,
}


class ReferenceQuantizer:
    """The CPU tier's: see `base.Quantizer`."""

    page_bridge = None
    streaming = None

    def __init__(
        self, store: WeightStore, matrices: Mapping[str, BlockMatrix], staging_nbytes: int
    ) -> None:
        self._store = store
        self._matrices = matrices
        self._room = np.empty(-(-staging_nbytes // 4), np.float32)
        self._sums = dict.fromkeys(matrices, ErrorSums())
        self.arrivals: Arrivals | None = store.arrivals
        self.targets = store.targets
        self.staging = -1
        self.nbytes = self._room.nbytes

    def write(self, target: int, offset: int, data: Buffer) -> None:
        if target != self.staging:
            self._store.write(target, offset, data)
            return
        view = memoryview(data).cast("B")
        memoryview(self._room).cast("B")[offset : offset + view.nbytes] = view

    def quantize(self, name: str, first: int, offset: int, count: int) -> None:
        matrix = self._matrices[name]
        nbytes, start = _run_nbytes(matrix.type), offset // 4
        blocks, deviations = quantize(matrix.type, self._room[start : start + count * _RUN])
        matrix.data[first * nbytes : (first + count) * nbytes] = blocks
        self._sums[name] += deviations

    async def read(self, name: str, offset: int, into: Buffer) -> None:
        view = memoryview(into).cast("B")
        view[:] = memoryview(self._matrices[name].data)[offset : offset + view.nbytes]

    async def sums(self) -> dict[str, ErrorSums]:
        return dict(self._sums)

    def close(self) -> None:
        self._room = np.empty(0, np.float32)
