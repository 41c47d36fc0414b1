"""Waist 2: the verbs of a WebGPU driver, in integers and bytes only.

Two drivers implement them: `gpu_native` (wgpu-py) and `gpu_browser` (Pyodide to web/bridge/).
Neither imports numpy. Buffers, pipelines and tapes are integers: an index in the low bits, a
generation in the high ones, so that a stale handle is an error and never another object. Verbs that
record are plain functions; verbs that wait are coroutines.

A tape is an `array("i")` of 32-bit words:

    n_groups, n_dispatches
    n_groups times:      pipeline, n_entries, n_entries times (binding, buffer, offset, size)
    n_dispatches times:  pipeline, group, x, y, z

`offset` and `size` count 4-byte words (so bindings past 2 GiB fit); `group` is the index of the
bind group in this tape; x, y, z are workgroup counts. Dispatches run in order in one pass. The
writes of a replay are one packed block of bytes, see `pack_writes`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bascule.backend.adapter import AdapterInfo as AdapterInfo

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.base import Tier
    from bascule.backend.memory import MemoryBudget, MemoryKind, MemoryUse
    from bascule.backend.profile import GpuProfile

WANTED_FEATURES = ("subgroups", "shader-f16", "timestamp-query")


def gpu_tier(limited: bool) -> Tier:
    """Return the tier of a device opened with or without `limited`."""
    return "webgpu-limited" if limited else "webgpu"


class Gpu(Protocol):
    """One device and its queue."""

    @property
    def adapter(self) -> AdapterInfo:
        """The adapter, its features and limits."""
        ...

    @property
    def lost(self) -> str:
        """Why the device was lost; empty while it is usable."""
        ...

    @property
    def allocated_nbytes(self) -> int:
        """Bytes of all buffers, including staging buffers."""
        ...

    @property
    def memory(self) -> MemoryUse:
        """Those bytes with their peak, and by kind."""
        ...

    def mark_memory(self) -> None:
        """Start counting `memory.marked_peak_nbytes`."""
        ...

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """See `Backend.limit_memory`; past it `alloc` and `read` raise GpuOutOfMemoryError."""
        ...

    @property
    def crossings(self) -> int:
        """Verbs called so far; in a page each is one call into JavaScript."""
        ...

    @property
    def n_objects(self) -> int:
        """Live buffers and tapes."""
        ...

    @property
    def n_pipelines(self) -> int:
        """Live pipelines."""
        ...

    @property
    def n_early_pipelines(self) -> int:
        """Requested pipelines that had been compiled ahead (web/early.js)."""
        ...

    def alloc(self, nbytes: int, *, uniform: bool = False, kind: MemoryKind = "programs") -> int:
        """Allocate a zeroed buffer of `nbytes` (rounded up to 4), for storage or uniforms.

        `memory` counts it under `kind`. GpuOutOfMemoryError if the device reports at once that it
        has no memory; in a page that comes later, see `granted`.
        """
        ...

    async def granted(self, buffers: Iterable[int]) -> None:
        """Wait until the device confirms that it has memory for all of these buffers.

        GpuOutOfMemoryError if it has none for one of them. Buffers may be bound only afterwards.
        """
        ...

    def trim(self) -> int:
        """Free cached staging buffers; return their bytes."""
        ...

    def free(self, buffer: int) -> None:
        """Destroy a buffer. Work already submitted still completes."""
        ...

    def write(self, buffer: int, offset: int, data: Buffer) -> None:
        """Queue a copy of `data` into a buffer; `offset` and the length are multiples of 4."""
        ...

    def read(self, buffer: int, offset: int, into: Buffer) -> Awaitable[None]:
        """Fill the writable `into` from a buffer after all work queued so far.

        The copy is queued by the call itself, so work queued later cannot change what is read;
        awaiting only waits. Raises GpuError for the first command that the device has rejected
        since the last read.
        """
        ...

    def done(self) -> Awaitable[None]:
        """Wait until the device has finished all work that was queued before this call.

        Raises as `read` does, and DeviceLostError if the device was lost meanwhile.
        """
        ...

    async def pipeline(
        self,
        wgsl: str,
        constants: Mapping[str, float],
        bindings: str,
        label: str,
        entry: str = "main",
    ) -> int:
        """Compile an entry point with override `constants`.

        `bindings` has a letter for each binding of group 0: u uniform, r read-only storage, w
        read-write storage, - none. `label` names the shader file in errors (ShaderError).
        """
        ...

    def drop_pipeline(self, pipeline: int) -> None:
        """Drop a pipeline; tapes that were recorded with it still run."""
        ...

    def record(self, words: array[int]) -> int:
        """Make bind groups and store a tape for replay."""
        ...

    def forget(self, tape: int) -> None:
        """Drop a tape and its bind groups."""
        ...

    def replay(self, tape: int, writes: Buffer = b"") -> None:
        """Apply the packed `writes` and run the tape, in one submission.

        GpuError with the shader's file if a buffer of the tape has been freed.
        """
        ...

    def run(self, words: array[int], writes: Buffer = b"") -> None:
        """Apply the packed `writes` and run a tape once, in one call and one submission.

        GpuError as `record` and `replay`.
        """
        ...

    async def start_profile(self) -> None:
        """Start measuring: each dispatch in a pass of its own, between two timestamps, if the
        device has them; else each submission until it is done.
        """
        ...

    async def stop_profile(self) -> GpuProfile:
        """Stop measuring, after all work queued so far. InputError if no profile is running."""
        ...

    def destroy(self) -> None:
        """Destroy the device and everything on it."""
        ...


def pack_writes(writes: Sequence[tuple[int, int, Buffer]]) -> bytearray:
    """Pack (buffer, offset, data) triples for `Gpu.replay`.

    Layout: n, then n times (buffer, offset in bytes, nbytes) as int32, then each data in turn, each
    a multiple of 4 bytes long.
    """
    views = [(buffer, offset, memoryview(data).cast("B")) for buffer, offset, data in writes]
    head = [len(views)]
    for buffer, offset, view in views:
        head += (buffer, offset, view.nbytes)
    packed = bytearray(struct.pack(f"<{len(head)}i", *head))
    for _, _, view in views:
        packed += view
    return packed


def unpack_writes(packed: Buffer) -> list[tuple[int, int, memoryview]]:
    """Undo `pack_writes` without copying the data."""
    view = memoryview(packed).cast("B")
    if not view.nbytes:
        return []
    (count,) = struct.unpack_from("<i", view)
    at = 4 + 12 * count
    writes: list[tuple[int, int, memoryview]] = []
    for index in range(count):
        buffer, offset, nbytes = struct.unpack_from("<3i", view, 4 + 12 * index)
        writes.append((buffer, offset, view[at : at + nbytes]))
        at += nbytes
    return writes
