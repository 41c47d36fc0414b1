"""Rows of float32 numbers in a device's memory, in blocks no larger than a tensor may be."""

# pyright: reportPrivateUsage=false
# Rows are added to buffers that hold some already.

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from bascule.base.arrays import Array, np
from bascule.errors import LimitError
from bascule.kernels.buffer import BufferPool, DeviceBuffer
from bascule.kernels.kernel_device import KernelDevice

# Larger blocks would only leave more of the last one empty.
_MAX_BLOCK_NBYTES = 64 << 20
_MIN_ROWS = 256
_FEW_NBYTES = 8 << 20


Key = str | int


@dataclass(slots=True)
class Block:
    """A buffer (capacity, width); its first rows are those of `keys`."""

    buffer: DeviceBuffer
    keys: list[Key]

    @property
    def n(self) -> int:
        """The number of filled rows."""
        return len(self.keys)

    @property
    def capacity(self) -> int:
        """The number of rows that fit."""
        return self.buffer.shape[0]


class Blocks:
    """Rows of one width, and room for more: a quarter of them, or as many again while few."""

    def __init__(self, device: KernelDevice, width: int) -> None:
        self._device = device
        self.width = width
        self.listed: list[Block] = []

    @property
    def n(self) -> int:
        """The number of rows."""
        return sum(block.n for block in self.listed)

    @property
    def nbytes(self) -> int:
        """Bytes on the device, including free rows in blocks."""
        return sum(block.buffer.nbytes for block in self.listed)

    def key(self, place: int) -> Key:
        """Return the key of a row by its position among all."""
        for block in self.listed:
            if place < block.n:
                return block.keys[place]
            place -= block.n
        raise IndexError(place)

    def add(self, rows: Array, keys: Sequence[Key]) -> None:
        """Copy rows (n, width) after the others, or none of them if memory runs out."""
        before = [(block, block.n) for block in self.listed]
        try:
            self._add(rows, keys)
        except BaseException:
            for block in self.listed[len(before) :]:
                block.buffer.close()
            del self.listed[len(before) :]
            for block, n in before:
                del block.keys[n:]
            raise

    def _add(self, rows: Array, keys: Sequence[Key]) -> None:
        start = 0
        while start < len(keys):
            last = self.listed[-1] if self.listed else None
            if last is None or last.n == last.capacity:
                last = Block(self._empty(max(len(keys) - start, self._spare_rows)), [])
                self.listed.append(last)
            end = min(len(keys), start + last.capacity - last.n)
            some = np.ascontiguousarray(rows[start:end])
            offset = last.n * self.width * 4
            last.buffer._store.write("data", offset, memoryview(some).cast("B"))
            last.keys.extend(keys[start:end])
            start = end

    @property
    def _spare_rows(self) -> int:
        """Return the extra rows of a new block that needs few."""
        few = self.n * self.width * 4 <= _FEW_NBYTES
        return self.n if few else self.n // 4

    def _empty(self, n: int) -> DeviceBuffer:
        pool = self._pool
        max_rows = min(_MAX_BLOCK_NBYTES, pool.backend.limits.binding_nbytes) // (self.width * 4)
        if max_rows < 1:
            nbytes, limit = self.width * 4, pool.backend.limits.binding_nbytes
            what = "A row of an index"
            raise LimitError(what, f"{nbytes:,} bytes", f"one tensor may have {limit:,.0f} here")
        return pool.empty((min(max(n, _MIN_ROWS), int(max_rows)), self.width), "f32", "An index")

    async def read(self, block: Block) -> Array:
        """A copy of a block's rows."""
        block.buffer._check_on(self._pool, "index")
        rows = np.empty((block.n, self.width), np.float32)
        await block.buffer._store.read("data", 0, memoryview(rows).cast("B"))
        return rows

    async def remove(self, keys: Set[Key]) -> None:
        """Remove rows, block by block; an empty block is freed."""
        for block in tuple(self.listed):
            staying = np.array([key not in keys for key in block.keys], bool)
            if staying.all():
                continue
            rows = (await self.read(block))[staying] if staying.any() else None
            if rows is not None:
                block.buffer._store.write("data", 0, memoryview(rows).cast("B"))
                block.keys = [key for key in block.keys if key not in keys]
            else:
                self.listed.remove(block)
                block.buffer.close()

    def check(self) -> None:
        """InputError if a block was freed with its device; DeviceLostError if it was lost."""
        for block in self.listed:
            block.buffer._check_on(self._pool, "index")

    def close(self) -> None:
        """Free all blocks."""
        for block in self.listed:
            block.buffer.close()
        self.listed = []

    @property
    def _pool(self) -> BufferPool:
        return self._device.pool
