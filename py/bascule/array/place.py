"""The devices of arrays: a tier is opened when something is first computed on it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bascule.array.errors import MustAwaitError
from bascule.array.graph import Node, ordered
from bascule.array.host_runner import HostRunner
from bascule.backend.tiers import COMPUTE_TIERS, SHADER_TIERS
from bascule.base.arrays import need_numpy
from bascule.base.at_once import WouldWaitError, finish_now
from bascule.base.turns import CrossLoopLock
from bascule.base.waiting import sync
from bascule.choosing.auto import open_tier
from bascule.choosing.reopening import Recovery, is_lost
from bascule.errors import BasculeError, DeviceLostError, InputError

if TYPE_CHECKING:
    from bascule.array.gpu_runner import GpuRunner
    from bascule.backend.base import Backend
    from bascule.backend.deviceless import Deviceless
    from bascule.backend.memory import MemoryUse
    from bascule.backend.webgpu.backend import WebGpuBackend

T = TypeVar("T")
Opener = Callable[["Backend | None"], Awaitable["Backend"]]
Work = Callable[["GpuRunner | HostRunner"], Awaitable[None]]
TIERS = (*COMPUTE_TIERS, "auto")


class ArrayDevice:
    """A device of arrays, `x.device`. It opens with the first computation.

    `xp.device("webgpu")` returns the one of a tier, `device.arrays` that of a `bascule.Device`.
    """

    def __init__(
        self, tier: str, backend: Backend | None = None, opens: Opener | None = None
    ) -> None:
        self._wanted = tier
        self._backend = backend
        self._opens = opens or self._open_tier
        self._recovery = Recovery(tier)
        self._runner: GpuRunner | HostRunner | None = None
        self._opening = CrossLoopLock()

    def __repr__(self) -> str:
        return f"<ArrayDevice {self.tier}{'' if self._backend else ', not open yet'}>"

    def __str__(self) -> str:
        return self.tier

    @property
    def tier(self) -> str:
        """The tier that computes, or the requested one while it is not open."""
        return self._backend.tier if self._backend else self._wanted

    @property
    def backend(self) -> Backend | None:
        """The backend; None before it is open."""
        return self._backend

    def memory(self) -> MemoryUse | None:
        """Bytes on the device by kind, arrays under "buffers"; None before it is open.

        Unreferenced arrays are swept first; their buffers stay for the next arrays.
        """
        if self._backend is None:
            return None
        if isinstance(self._runner, _gpu_runner()):
            self._backend.turns.when_free(self._runner.pool.trim)
        return self._backend.memory

    async def open(self) -> GpuRunner | HostRunner:
        """Return what computes nodes here; TierUnavailableError if the tier does not work."""
        async with self._opening.turn():
            if self._runner is None:
                await need_numpy("bascule.array", "Load numpy into this Pyodide first.")
                return self._move(await self._opens(self._backend))
            if self._backend is not None and is_lost(self._backend):
                return self._move(await self._opens(self._backend))
            return self._runner

    async def compute(self, nodes: Sequence[Node]) -> None:
        """Compute these. DeviceLostError for numbers that were only on a lost device."""
        await self._run(lambda runner: runner.compute(nodes), nodes)

    async def read(self, nodes: Sequence[Node]) -> None:
        """Compute these and fetch their numbers; errors as `compute`."""
        await self._run(lambda runner: runner.read(nodes), nodes)

    async def _run(self, work: Work, nodes: Sequence[Node]) -> None:
        """Run it, once more if that showed that the device was lost."""
        runner = await self.open()
        _drop_lost_memory(nodes)
        try:
            await work(runner)
        except DeviceLostError:
            if self._backend is None or not is_lost(self._backend):
                raise
            runner = await self.open()
            _drop_lost_memory(nodes)
            await work(runner)

    def _move(self, backend: Backend) -> GpuRunner | HostRunner:
        self._backend = backend
        self._runner = _runner_of(backend)
        return self._runner

    async def _open_tier(self, lost: Backend | None) -> Backend:
        """Open the requested tier, or replace a lost backend."""
        if lost is None:
            return (await open_tier(self._wanted)).backend
        if not is_lost(lost):
            return lost
        opened = await self._recovery.reopen(lost)
        lost.close()
        return opened.backend


def _drop_lost_memory(nodes: Sequence[Node]) -> None:
    """Drop memory on lost devices if numpy has the numbers, too; otherwise DeviceLostError."""
    for node in ordered(nodes):
        if node.memory is None or not (reason := node.memory.lost):
            continue
        if node.host is None:
            nbytes = node.size * node.dtype.itemsize
            raise DeviceLostError(
                reason, f"An array {node.shape} of {node.dtype.name} ({nbytes:,} bytes)"
            )
        node.memory = None


def _gpu_runner() -> type[GpuRunner]:
    from bascule.array.gpu_runner import GpuRunner

    return GpuRunner


def _runner_of(backend: Backend) -> GpuRunner | HostRunner:
    if backend.tier in SHADER_TIERS:
        return _gpu_runner()(cast("WebGpuBackend", backend))
    return HostRunner(cast("Deviceless", backend))


class _Devices:
    """The devices of tiers, one each, and the default one."""

    def __init__(self) -> None:
        self.by_tier: dict[str, ArrayDevice] = {}
        self.default: ArrayDevice | None = None


_devices = _Devices()


def device(which: Any = None) -> ArrayDevice:
    """Return the device of arrays of a tier's name, a `bascule.Device`, or None: the default."""
    if isinstance(which, ArrayDevice):
        return which
    if which is None:
        return default_device()
    result = getattr(which, "arrays", None)
    if isinstance(result, ArrayDevice):
        return result
    if not isinstance(which, str) or which not in TIERS:
        raise InputError("device", f"one of {', '.join(TIERS)}, or a Device", repr(which))
    return _devices.by_tier.setdefault(which, ArrayDevice(which))


def default_device() -> ArrayDevice:
    """Return the device that arrays are created on: "auto" until `set_default_device`."""
    if _devices.default is None:
        _devices.default = device("auto")
    return _devices.default


def set_default_device(which: Any) -> ArrayDevice:
    """Create new arrays on this device: a tier's name, a `bascule.Device` or an `ArrayDevice`."""
    _devices.default = device(which)
    return _devices.default


def at_once(work: Awaitable[T], what: str) -> T:
    """Wait in synchronous code; MustAwaitError, naming `what`, in a page that cannot.

    Without JSPI a page's device is read through a canvas, and nothing else may have to wait.
    """
    if sys.platform == "emscripten":
        from bascule.base.waiting_browser import can_run_sync

        if not can_run_sync():
            try:
                return finish_now(work)
            except WouldWaitError as error:
                raise MustAwaitError(what, str(error)) from None
    return sync(work)


def compute_if_possible(node: Node) -> None:
    """Compute a graph that has grown large, if synchronous code can; otherwise it keeps growing.

    In a running event loop, and in a page without JSPI, only what does not have to wait is done:
    the task that holds the device's turn may need this loop. Errors are raised when the array is
    read.
    """
    work = node.device.compute((node,))
    with suppress(BasculeError, WouldWaitError):
        if _can_wait():
            sync(work)
        else:
            finish_now(work)
    node.depth = 0  # where it was not possible: it is tried again when it has grown as much


def _can_wait() -> bool:
    if sys.platform == "emscripten":
        from bascule.base.waiting_browser import can_run_sync

        return can_run_sync()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def numbers_at_once(node: Node, what: str) -> Any:
    """Return the numbers of a node in synchronous code; errors as `at_once`."""
    if node.host is None:
        at_once(node.device.read((node,)), what)
    return node.host
