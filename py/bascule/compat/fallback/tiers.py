"""The devices of a FallbackManager, each opened at first use."""

from __future__ import annotations

from functools import partial

from bascule.backend.base import Backend
from bascule.choosing.openers import OpenDevice
from bascule.compat.own_device import OwnDevice
from bascule.device.device import open_device
from bascule.errors import TierUnavailableError


class OpenDevices:
    """Open devices by tier. `device` is one of the caller's, which stays open."""

    def __init__(self, device: OpenDevice | None = None) -> None:
        self._device = device
        self._opened: dict[str, OwnDevice] = {}

    async def backend(self, tier: str) -> Backend:
        """The backend of a tier, or of the one that "auto" chooses; reopened after a lost device.

        TierUnavailableError.
        """
        callers = self._device.backend if self._device is not None else None
        if callers is not None and not callers.lost and tier in ("auto", callers.tier):
            return callers
        if tier not in self._opened:
            self._opened[tier] = OwnDevice(None, partial(open_device, tier))
        return (await self._opened[tier].get()).backend

    async def simplest(self) -> Backend:
        """The tier without WebGPU limits: "wasm", or "cpu" where that is unavailable."""
        try:
            return await self.backend("wasm")
        except TierUnavailableError:
            return await self.backend("cpu")

    def close(self) -> None:
        """Close the devices that were opened here."""
        while self._opened:
            self._opened.popitem()[1].close()
