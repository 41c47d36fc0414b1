"""Timestamps around each dispatch, for the driver over wgpu-py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from bascule.backend.profile import DeviceSpan, GpuProfile, Submission

# WebGPU allows query sets of 4096; a dispatch takes two queries.
_SET_DISPATCHES = 2048
_PAGE_NBYTES = 1 << 20
# Dispatches past 32 MiB of timestamps (two million of them) run untimed.
_MAX_PAGES = 32
_RESOLVE_ALIGNMENT = 256
# Timestamps slow a pass by some percent: of a tape's runs the first and then every 8th is timed.
TIMED_EACH = 8

Dispatch = tuple[Any, int, int, int, int]


@dataclass(slots=True)
class _Noted:
    at_s: float
    pipelines: Sequence[int]
    page: int = -1
    offset: int = 0
    done_s: float | None = None


@dataclass(slots=True)
class NativeProfile:
    """A profile of a wgpu-py device; `count` gets the bytes that it allocates and frees."""

    device: Any
    timed: bool
    count: Callable[[int], None]
    began_s: float = field(default_factory=perf_counter)
    compiled: list[DeviceSpan] = field(default_factory=list[DeviceSpan])
    labels: dict[int, str] = field(default_factory=dict[int, str])
    n_untimed: int = 0
    _sets: list[Any] = field(default_factory=list[Any])
    _pages: list[Any] = field(default_factory=list[Any])
    _used_nbytes: int = _PAGE_NBYTES  # of the last page
    _noted: list[_Noted] = field(default_factory=list[_Noted])
    _waits: list[Any] = field(default_factory=list[Any])
    # By the identity of a tape's list of pipelines: the list, which keeps it unique, and the number
    # of runs.
    _runs: dict[int, tuple[Sequence[int], int]] = field(
        default_factory=dict[int, tuple[Sequence[int], int]]
    )

    def __post_init__(self) -> None:
        """Allocate the first query set and page, and encode a pass once before measuring."""
        if not self.timed:
            return
        self._add_page()
        query_set = self._set(0)
        encoder = self.device.create_command_encoder()
        writes = {
            "query_set": query_set,
            "beginning_of_pass_write_index": 0,
            "end_of_pass_write_index": 1,
        }
        encoder.begin_compute_pass(timestamp_writes=writes).end()
        encoder.resolve_query_set(query_set, 0, 2, self._pages[-1], 0)
        self.device.queue.submit([encoder.finish()])

    def encode(
        self, groups: Sequence[Any], dispatches: Sequence[Dispatch], pipelines: Sequence[int]
    ) -> Any | None:
        """Return timed commands for the dispatches; None if they are to run untimed."""
        noted = _Noted(perf_counter() - self.began_s, pipelines)
        nbytes = 16 * len(dispatches)
        if self.timed and not (self._is_sampled(pipelines) and self._has_room(nbytes)):
            self.n_untimed += len(dispatches)
            return None
        self._noted.append(noted)
        if not self.timed:
            return None
        noted.page, noted.offset = len(self._pages) - 1, self._used_nbytes
        encoder = self.device.create_command_encoder()
        for index, (pipeline, group, x, y, z) in enumerate(dispatches):
            at = 2 * (index % _SET_DISPATCHES)
            writes = {
                "query_set": self._set(index // _SET_DISPATCHES),
                "beginning_of_pass_write_index": at,
                "end_of_pass_write_index": at + 1,
            }
            run = encoder.begin_compute_pass(timestamp_writes=writes)
            run.set_pipeline(pipeline)
            run.set_bind_group(0, groups[group])
            run.dispatch_workgroups(x, y, z)
            run.end()
        for first in range(0, len(dispatches), _SET_DISPATCHES):
            count = 2 * min(_SET_DISPATCHES, len(dispatches) - first)
            offset = noted.offset + 16 * first
            query_set = self._set(first // _SET_DISPATCHES)
            encoder.resolve_query_set(query_set, 0, count, self._pages[-1], offset)
        self._used_nbytes += -(-nbytes // _RESOLVE_ALIGNMENT) * _RESOLVE_ALIGNMENT
        return encoder.finish()

    def submitted(self, queue: Any) -> None:
        """Without timestamps: record when the queue has finished the last submission."""
        if self.timed or not self._noted:
            return
        noted = self._noted[-1]

        fence = self._fence(queue)

        def done(_: object) -> None:
            noted.done_s = perf_counter() - self.began_s
            fence.destroy()

        self._waits.append(fence.map_async("READ").then(done))

    async def finish(self, queue: Any, period: float) -> GpuProfile:
        """Wait for what was submitted, return the measurements and free everything.

        `period` is nanoseconds per tick: wgpu gives the GPU's own, unlike the specification.
        """
        fence = self._fence(queue)
        await fence.map_async("READ")
        fence.destroy()
        for wait in self._waits:
            await wait
        seconds = perf_counter() - self.began_s
        try:
            pages = [await self._read(queue, page) for page in self._pages]
        finally:
            self.close()
        submissions: list[Submission] = []
        for each in self._noted:
            ticks: list[int] = []
            if each.page >= 0:
                at = each.offset // 8
                ticks = pages[each.page][at : at + 2 * len(each.pipelines)].tolist()
                if period != 1.0:
                    ticks = [round(tick * period) for tick in ticks]
            submissions.append(Submission(each.at_s, each.pipelines, ticks, each.done_s))
        return GpuProfile(
            self.timed, seconds, submissions, self.labels, self.compiled, n_untimed=self.n_untimed
        )

    def close(self) -> None:
        """Free everything."""
        for page in self._pages:
            self.count(-page.size)
            page.destroy()
        self._pages.clear()
        for query_set in self._sets:
            query_set.destroy()
        self._sets.clear()

    def _fence(self, queue: Any) -> Any:
        """Return a buffer that can be mapped once the queue has finished all submissions so far.

        See `NativeGpu.done`; nothing has to wait for it.
        """
        fence = self.device.create_buffer(size=4, usage="MAP_READ|COPY_DST")
        encoder = self.device.create_command_encoder()
        encoder.clear_buffer(fence)
        queue.submit([encoder.finish()])
        return fence

    def _is_sampled(self, pipelines: Sequence[int]) -> bool:
        """Whether this run of a tape, identified by its list of pipelines, is timed."""
        _, n_runs = self._runs.get(id(pipelines), (pipelines, 0))
        self._runs[id(pipelines)] = pipelines, n_runs + 1
        return n_runs % TIMED_EACH == 0

    def _has_room(self, nbytes: int) -> bool:
        if nbytes > _PAGE_NBYTES:
            return False
        if self._used_nbytes + nbytes <= _PAGE_NBYTES:
            return True
        if len(self._pages) == _MAX_PAGES:
            return False
        self._add_page()
        return True

    def _add_page(self) -> None:
        usage = "QUERY_RESOLVE|COPY_SRC"
        self._pages.append(self.device.create_buffer(size=_PAGE_NBYTES, usage=usage))
        self.count(_PAGE_NBYTES)
        self._used_nbytes = 0

    def _set(self, index: int) -> Any:
        if index == len(self._sets):
            count = 2 * _SET_DISPATCHES
            self._sets.append(self.device.create_query_set(type="timestamp", count=count))
        return self._sets[index]

    async def _read(self, queue: Any, page: Any) -> memoryview:
        staging = self.device.create_buffer(size=page.size, usage="MAP_READ|COPY_DST")
        try:
            encoder = self.device.create_command_encoder()
            encoder.copy_buffer_to_buffer(page, 0, staging, 0, page.size)
            queue.submit([encoder.finish()])
            await staging.map_async("READ")
            return memoryview(bytes(staging.read_mapped())).cast("Q")
        finally:
            staging.destroy()
