"""Arrays in a device's memory: copied there, written by operations, read back."""

# pyright: reportPrivateUsage=false
# A pool creates its buffers.

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import prod
from typing import Any, Literal, Protocol
from weakref import finalize

from bascule.backend.base import Backend, StateStore
from bascule.base.arrays import NUMPY, Array, np
from bascule.base.dtypes import nbytes_of
from bascule.errors import DeviceLostError, InputError, LimitError
from bascule.program.program import Value

BufferDType = Literal["f32", "u32", "i32", "f16"]

_DTYPES: tuple[BufferDType, ...] = ("f32", "f16", "u32", "i32")
_DATA = "data"  # the one tensor of a buffer's store
_CLOSED_HINT = "Open another one with bascule.open_device()."


class Closable(Protocol):
    """A resource on a device that can be closed."""

    def close(self) -> None:
        """Free it."""
        ...


class BufferPool:
    """The memory of a device's buffers; unreferenced buffers are freed at the next use."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.closed = False
        self.owner: object = None  # the KernelDevice whose buffers these are
        self._dropped: deque[Closable] = deque()

    def when_dropped(self, owner: object, item: Closable) -> None:
        """Close `item` at a later use once `owner` is collected, which may happen in any thread."""
        finalize(owner, self._dropped.append, item).atexit = False

    def check_open(self, verb: str) -> None:
        """InputError for a `verb` on a closed device."""
        if self.closed:
            raise InputError(verb, "an open device", "one that was closed", hint=_CLOSED_HINT)

    def empty(self, shape: tuple[int, ...], dtype: BufferDType, what: str) -> DeviceBuffer:
        """Allocate a buffer of zeros; LimitError, naming `what`, if it is too large."""
        self.sweep()
        nbytes, max_nbytes = nbytes_of(dtype, prod(shape)), self.backend.limits.binding_nbytes
        if nbytes > max_nbytes:
            limit = f"one tensor may have {max_nbytes:,.0f} here"
            raise LimitError(what, f"{nbytes:,} bytes", limit)
        store = self.backend.states([Value(_DATA, shape, dtype)], {}, kind="buffers")
        return DeviceBuffer(self, _Memory(store, self._dropped), shape, dtype)

    def upload(self, array: Any, what: str, wanted: BufferDType | None = None) -> DeviceBuffer:
        """Copy an array; InputError, naming `what`, for one that no buffer can hold."""
        result, dtype = _checked(array, what, wanted)
        buffer = self.empty(result.shape, dtype, what)
        buffer._write(result)
        if dtype == "u32":
            buffer._largest = int(result.max())
        return buffer

    def sweep(self) -> None:
        """Free what is no longer referenced."""
        while self._dropped:
            self._dropped.popleft().close()


class _Memory:
    """The memory that a buffer and its views share. When they are collected it waits in `dropped`
    to be freed: Python may collect it in any thread, at any moment.
    """

    def __init__(self, store: StateStore, dropped: deque[Closable]) -> None:
        self.store = store
        self.closed = False
        self._finalizer = finalize(self, dropped.append, store)
        self._finalizer.atexit = False

    def close(self) -> None:
        self.closed = True
        if self._finalizer.detach():
            self.store.close()


class DeviceBuffer:
    """A dense array in a device's memory, row-major, from `device.buffer` and `device.ops`.

    Its memory is freed when it is closed, or no longer referenced, or its device is closed.
    """

    def __init__(
        self, pool: BufferPool, memory: _Memory, shape: tuple[int, ...], dtype: BufferDType
    ) -> None:
        self._pool = pool
        self._memory = memory
        self._dtype: BufferDType = dtype
        self.shape = shape
        self._largest: int | None = None  # of whole numbers

    def __repr__(self) -> str:
        state = ", closed" if self._memory.closed or self._pool.closed else ""
        return (
            f"<DeviceBuffer {self.shape} {NUMPY[self._dtype]} on {self._pool.backend.tier}{state}>"
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype: float32, uint32, int32 or float16."""
        return np.dtype(NUMPY[self._dtype])

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return nbytes_of(self._dtype, prod(self.shape))

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    async def numpy(self) -> Array:
        """Read it: a new array of its shape and dtype, once all work on it so far has been done.

        InputError if it or its device was closed; DeviceLostError or GpuError if the device was
        lost, or has rejected the work.
        """
        self._check_open("numpy")
        result = np.empty(self.shape, NUMPY[self._dtype])
        try:
            async with self._pool.backend.turns.turn():
                await self._store.read(_DATA, 0, result.data)
        except DeviceLostError as error:
            raise self._lost_error(error.reason) from None
        return result

    def _lost_error(self, reason: str) -> DeviceLostError:
        what = f"A buffer {self.shape} of {self.dtype} ({self.nbytes:,} bytes)"
        return DeviceLostError(reason, what)

    def _write(self, array: Array) -> None:
        """Queue a copy of a dense array of the same size."""
        self._store.write(_DATA, 0, memoryview(array).cast("B"))

    async def _read(self, into: Array) -> None:
        """Fill a dense array of the same size."""
        await self._store.read(_DATA, 0, memoryview(into).cast("B"))

    def reshape(self, *shape: int | Sequence[int]) -> DeviceBuffer:
        """Return the same memory in another shape; one axis may be -1. Nothing is copied.

        InputError if the number of elements would change.
        """
        self._check_open("reshape")
        view = DeviceBuffer(self._pool, self._memory, self._shaped(shape), self._dtype)
        view._largest = self._largest
        return view

    def close(self) -> None:
        """Free the memory, also that of its views by `reshape`. Closing twice is fine."""
        self._pool.backend.turns.when_free(self._memory.close)

    def _check_open(self, verb: str) -> None:
        """InputError for a `verb` on a closed buffer, or one of a closed device."""
        self._pool.check_open(verb)
        if self._memory.closed:
            raise InputError(verb, "an open buffer", "one that was closed")

    def _check_on(self, pool: BufferPool, where: str) -> None:
        """InputError, naming `where`, unless it is on that device; DeviceLostError if lost."""
        self._check_open(where)
        if self._pool is pool:
            return
        if lost := self._pool.backend.lost:
            raise self._lost_error(lost)
        hint = "Read it there with `await buffer.numpy()`."
        raise InputError(where, "a buffer of this device", "one of another", hint=hint)

    def _shares_memory(self, other: DeviceBuffer) -> bool:
        """Whether both are views of one memory."""
        return self._memory is other._memory

    @property
    def _store(self) -> StateStore:
        """Its memory as a backend's store."""
        return self._memory.store

    def _shaped(self, shape: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
        first = shape[0] if len(shape) == 1 else shape
        sizes = tuple(first) if isinstance(first, Sequence) else (first,)
        known = [n for n in sizes if isinstance(n, int) and n > 0]
        result = sizes
        if len(known) == len(sizes) - 1 and -1 in sizes and self.size % prod(known) == 0:
            result = tuple(self.size // prod(known) if n == -1 else n for n in sizes)
        elif len(known) != len(sizes) or not sizes:
            result = ()
        if not result or prod(whole_sizes := tuple(map(_axis_size, result))) != self.size:
            expected = f"a shape of {self.size:,} elements"
            raise InputError("reshape", expected, str(sizes), hint="One axis may be -1.")
        return whole_sizes


def _axis_size(size: object) -> int:
    return int(size) if isinstance(size, int) else 0


def _checked(array: Any, what: str, wanted: BufferDType | None) -> tuple[Array, BufferDType]:
    """Return the array as dense numbers of the wanted dtype, else float32 or uint32, exactly."""
    try:
        result = np.asarray(array)
    except ValueError as error:  # rows of different lengths
        raise InputError(what, "an array", str(error)) from None
    if not result.ndim or not result.size:
        hint = "Give it at least one axis, and no axis of size 0."
        raise InputError(what, "a non-empty array", f"shape {result.shape}", hint=hint)
    if result.dtype.kind in "iu" and wanted in (None, "u32", "i32"):
        low, high = int(result.min()), int(result.max())
        minimum, maximum = (-(1 << 31), (1 << 31) - 1) if wanted == "i32" else (0, (1 << 32) - 1)
        if low < minimum or high > maximum:
            raise InputError(
                what, f"whole numbers from {minimum:,} to {maximum:,}", f"{low} to {high}"
            )
        return np.ascontiguousarray(result, NUMPY[wanted or "u32"]), wanted or "u32"
    if wanted in ("u32", "i32"):
        raise InputError(what, "whole numbers", f"dtype {result.dtype}")
    if result.dtype.kind != "f" or result.dtype.itemsize > 4:
        expected = "an array of float32, float16 or whole numbers"
        hint = "WebGPU has no such type: convert it, x.astype(numpy.float32)."
        raise InputError(what, expected, f"dtype {result.dtype}", hint=hint)
    return np.ascontiguousarray(result, NUMPY[wanted or "f32"]), wanted or "f32"


def buffer_dtype(dtype: Any, what: str) -> BufferDType:
    """Return the buffer dtype of a numpy dtype; InputError, naming `what`, if there is none."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)[:40]
    for known in _DTYPES:
        if NUMPY[known] == name:
            return known
    expected = f"one of {', '.join(NUMPY[known] for known in _DTYPES)}"
    raise InputError(f"{what}, dtype", expected, name)
