"""Quantize arrays in memory: a slab of a few MiB at a time passes through a staging buffer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from math import inf, prod
from typing import Any

from bascule.backend.base import Quantizer
from bascule.base.arrays import NDArray, np
from bascule.base.dtypes import block_of
from bascule.program.program import Parameter
from bascule.weights.quantized import SLAB_BLOCKS

_RUN = 32
_STEP = 64  # numbers: a slab starts at a multiple of 256 bytes
_SLAB_NUMBERS = _RUN * SLAB_BLOCKS
_READ_NBYTES = 1 << 22


def staging_nbytes(parameters: Sequence[Parameter], max_nbytes: float = inf) -> int:
    """Return the size of a quantizer's staging buffer: that of the largest slab, limited to
    `max_nbytes` if the smallest slab fits in them.
    """
    step = 4 * _STEP
    room = max(step, int(min(max_nbytes, 4 * _SLAB_NUMBERS)) // step * step)
    return min(room, 4 * max(prod(p.shape) for p in parameters))


async def quantize_slabs(
    quantizer: Quantizer,
    parameter: Parameter,
    array: NDArray[Any],
    staging: int,
    done: Callable[[], Awaitable[None]],
    in_flight: int = 1,
) -> AsyncIterator[int]:
    """Quantize `array` into the blocks of `parameter`; yield the number of elements done, slab by
    slab.

    The quantizer's staging buffer has `staging` bytes: see `staging_nbytes`. Queued slabs hold
    memory until the device has processed them: after each `in_flight` slabs `done`, which is
    `Backend.done`, is awaited.
    """
    slab = staging // 4 if array.size <= staging // 4 else staging // (4 * _STEP) * _STEP
    for index, start in enumerate(range(0, array.size, slab), 1):
        # For an array in another layout `flat` copies only the slab.
        with np.errstate(over="ignore"):  # a float64 that is too large counts as infinite
            part = array.flat[start : start + slab].astype(np.float32)
        quantizer.write(quantizer.staging, 0, part.data)
        quantizer.quantize(parameter.name, start // _RUN, 0, part.size // _RUN)
        if index % in_flight == 0:
            await done()
        yield start + part.size


async def read_blocks(quantizer: Quantizer, parameter: Parameter) -> NDArray[np.uint8]:
    """Read all blocks of `parameter`, without padding."""
    data = np.empty(parameter.nbytes, np.uint8)
    for start in range(0, len(data), _READ_NBYTES):
        await quantizer.read(parameter.name, start, data[start : start + _READ_NBYTES].data)
    block = block_of(parameter.dtype)
    return data[: prod(parameter.shape) // block.n_elements * block.nbytes]
