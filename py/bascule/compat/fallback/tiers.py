"""The devices that a FallbackManager holds open: each opened when it is needed first."""

from __future__ import annotations

from bascule.backend.base import Backend
from bascule.base.turns import CrossLoopLock
from bascule.choosing.openers import OpenDevice
from bascule.device.device import Device, open_device
from bascule.errors import TierUnavailableError


class OpenTiers:
    """By the names they were asked for. `device` is one of the caller's, which stays open."""

    def __init__(self, device: OpenDevice | None = None) -> None:
        self._device = device
        self._opened: dict[str, Device] = {}
        self._opening = CrossLoopLock()

    async def backend(self, wanted: str) -> Backend:
        """The backend of a tier, or of the one that "auto" takes.

        One whose device was lost is opened anew. TierUnavailableError.
        """
        given = self._device.backend if self._device is not None else None
        if given is not None and not given.lost and wanted in ("auto", given.tier):
            return given
        async with self._opening.turn():
            found = self._opened.get(wanted)
            if found is not None and found.lost:
                found.close()
                found = None
            if found is None:
                found = self._opened[wanted] = await open_device(wanted)
            return found.backend

    async def simplest(self) -> Backend:
        """Where everything runs that fits the memory: "wasm", or "cpu" where that does not work."""
        try:
            return await self.backend("wasm")
        except TierUnavailableError:
            return await self.backend("cpu")

    def close(self) -> None:
        """Close those that were opened here."""
        while self._opened:
            self._opened.popitem()[1].close()
