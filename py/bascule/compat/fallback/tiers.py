"""The devices that a FallbackManager holds open: each opened when it is needed first."""

from __future__ import annotations

from functools import partial

from bascule.backend.base import Backend
from bascule.choosing.openers import OpenDevice
from bascule.compat.own_device import OwnDevice
from bascule.device.device import open_device
from bascule.errors import TierUnavailableError


class OpenDevices:
    """By the names they were asked for. `device` is one of the caller's, which stays open."""

    def __init__(self, device: OpenDevice | None = None) -> None:
        self._device = device
        self._opened: dict[str, OwnDevice] = {}

    async def backend(self, wanted: str) -> Backend:
        """The backend of a tier, or of the one that "auto" takes.

        One whose device was lost is opened anew. TierUnavailableError.
        """
        given = self._device.backend if self._device is not None else None
        if given is not None and not given.lost and wanted in ("auto", given.tier):
            return given
        if wanted not in self._opened:
            self._opened[wanted] = OwnDevice(None, partial(open_device, wanted))
        return (await self._opened[wanted].get()).backend

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
