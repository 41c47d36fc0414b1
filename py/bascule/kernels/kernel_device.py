"""The device that kernels run on: its interface, and one for kernels without a device."""

# pyright: reportPrivateUsage=false
# A buffer's pool is private to it.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from bascule.backend.base import Backend
from bascule.backend.tiers import COMPUTE_TIERS, SHADER_TIERS
from bascule.base.arguments import described
from bascule.base.turns import CrossLoopLock
from bascule.choosing.auto import open_tier
from bascule.choosing.reopening import is_lost
from bascule.errors import InputError
from bascule.kernels.buffer import BufferPool, DeviceBuffer

Reopen = Callable[[Backend], Awaitable[Backend]]


@runtime_checkable
class KernelDevice(Protocol):
    """A device as its kernels use it."""

    @property
    def pool(self) -> BufferPool:
        """Its buffers, and its backend."""
        ...

    async def ready(self, what: str) -> None:
        """Reopen it if it was lost; InputError, naming `what`, if it was closed."""
        ...


@runtime_checkable
class SupportsKernels(Protocol):
    """What kernels accept as their device: a `Device`."""

    @property
    def kernel_device(self) -> KernelDevice:
        """The device for its kernels."""
        ...


class PoolDevice:
    """The `KernelDevice` of kernels whose buffers belong to that pool.

    `reopen` returns another backend in place of a lost one.
    """

    def __init__(self, pool: BufferPool, reopen: Reopen | None = None) -> None:
        self.pool = pool
        pool.owner = self
        self._reopen = reopen
        self._reopening = CrossLoopLock()

    async def ready(self, what: str) -> None:
        self.pool.check_open(what)
        if self._reopen is None or not is_lost(self.pool.backend):
            return
        async with self._reopening.turn():
            lost = self.pool
            if not is_lost(lost.backend):
                return  # another caller has opened it meanwhile
            backend = await self._reopen(lost.backend)
            if lost.closed:
                backend.close()
                lost.check_open(what)
            self.pool = BufferPool(backend)
            self.pool.owner = self
            lost.backend.close()


_opening = CrossLoopLock()
_opened: dict[tuple[str, ...], PoolDevice] = {}


async def kernel_device_for(
    chosen: SupportsKernels | None, arguments: Iterable[Any], *, has_reference: bool
) -> KernelDevice:
    """Return the chosen device, else that of a buffer among the arguments, else one that is opened
    once, and reopened after a loss.

    With a reference the wasm and cpu tiers suffice if there is no WebGPU. InputError for an invalid
    device, TierUnavailableError if no tier can be opened.
    """
    if chosen is not None:
        if not isinstance(chosen, SupportsKernels):
            raise InputError("device", "a Device of bascule.open_device()", described(chosen))
        return chosen.kernel_device
    for argument in arguments:
        owner = argument._pool.owner if isinstance(argument, DeviceBuffer) else None
        if isinstance(owner, KernelDevice):
            return owner
    tiers = COMPUTE_TIERS if has_reference else SHADER_TIERS
    async with _opening.turn():
        held = _opened.get(tiers)
        if held is None or held.pool.backend.lost:
            opened = await open_tier(tiers)
            held = _opened[tiers] = PoolDevice(BufferPool(opened.backend))
        return held
