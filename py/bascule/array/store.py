"""Memory of computed arrays: freed with the last reference, and reused by the next arrays."""

from __future__ import annotations

from collections import deque
from weakref import finalize

from bascule.backend.webgpu.gpu import Gpu

# Free buffers that wait for arrays of their size.
MAX_FREE_NBYTES = 64 << 20


class Memory:
    """A buffer that one value owns. It may be collected in any thread: the pool frees it later."""

    __slots__ = ("__weakref__", "_finalizer", "_gpu", "buffer", "nbytes")

    def __init__(self, pool: MemoryPool, buffer: int, nbytes: int) -> None:
        self._gpu = pool.gpu
        self.buffer = buffer
        self.nbytes = nbytes
        self._finalizer = finalize(self, pool.dropped.append, (buffer, nbytes))
        self._finalizer.atexit = False

    @property
    def lost(self) -> str:
        """Why its device was lost; empty while it is usable."""
        return self._gpu.lost


class MemoryPool:
    """Buffers by size. Sizes are rounded up so that arrays of similar size share them."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._free: dict[int, list[int]] = {}
        self._free_nbytes = 0
        self.dropped: deque[tuple[int, int]] = deque()

    def take(self, n_words: int) -> Memory:
        """Allocate that many words; GpuOutOfMemoryError if the device has no memory."""
        nbytes = _rounded(4 * n_words)
        waiting = self._free.get(nbytes)
        if waiting:
            self._free_nbytes -= nbytes
            return Memory(self, waiting.pop(), nbytes)
        return Memory(self, self.gpu.alloc(nbytes, kind="buffers"), nbytes)

    def fresh(self, n_words: int) -> Memory:
        """Allocate memory that no work which is still to be queued has used."""
        nbytes = _rounded(4 * n_words)
        return Memory(self, self.gpu.alloc(nbytes, kind="buffers"), nbytes)

    def sweep(self) -> None:
        """Reclaim what is no longer referenced. Nothing is freed: a tape may still use it."""
        while self.dropped:
            buffer, nbytes = self.dropped.popleft()
            self._free_nbytes += nbytes
            self._free.setdefault(nbytes, []).append(buffer)

    def trim(self, max_nbytes: int = 0) -> None:
        """Free waiting buffers, the largest first, until that many bytes are left."""
        self.sweep()
        for nbytes in sorted(self._free, reverse=True):
            waiting = self._free[nbytes]
            while waiting and self._free_nbytes > max_nbytes:
                self._free_nbytes -= nbytes
                buffer = waiting.pop()
                if not self.gpu.lost:
                    self.gpu.free(buffer)


def _rounded(nbytes: int) -> int:
    """Round up to at least 256, else to the next of 4, 5, 6 and 7 times a power of two."""
    if nbytes <= 256:
        return 256
    step = 1 << max(0, (nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step
