"""Where kernels run: a device as they see it, and one for kernels that were given none."""

# pyright: reportPrivateUsage=false
# A buffer keeps its home for itself.

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
class KernelHome(Protocol):
    """A device as its kernels see it."""

    @property
    def pool(self) -> BufferPool:
        """Its buffers, and its backend."""
        ...

    async def ready(self, what: str) -> None:
        """Open it again where it was lost; InputError, about `what`, where it was closed."""
        ...


@runtime_checkable
class HasKernels(Protocol):
    """What kernels take as their device: a `Device`."""

    @property
    def kernel_home(self) -> KernelHome:
        """Where its kernels run."""
        ...


class PoolHome:
    """The `KernelHome` of kernels whose buffers are of that pool.

    `reopen` gives another backend in the place of one that was lost.
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
_opened: dict[tuple[str, ...], PoolHome] = {}


async def home_for(
    chosen: HasKernels | None, arguments: Iterable[Any], *, has_reference: bool
) -> KernelHome:
    """The home of the device that was given, else that of a buffer among the arguments, else of a
    device that is opened once, and again where it was lost.

    With a reference the wasm and cpu tiers will do where there is no WebGPU. InputError for what is
    no device, TierUnavailableError where no tier serves.
    """
    if chosen is not None:
        if not isinstance(chosen, HasKernels):
            raise InputError("device", "a Device of bascule.open_device()", described(chosen))
        return chosen.kernel_home
    for argument in arguments:
        owner = argument._pool.owner if isinstance(argument, DeviceBuffer) else None
        if isinstance(owner, KernelHome):
            return owner
    tiers = COMPUTE_TIERS if has_reference else SHADER_TIERS
    async with _opening.turn():
        held = _opened.get(tiers)
        if held is None or held.pool.backend.lost:
            opened = await open_tier(tiers)
            held = _opened[tiers] = PoolHome(BufferPool(opened.backend))
        return held
