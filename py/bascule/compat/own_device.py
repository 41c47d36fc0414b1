"""A caller's device, or one that is opened at first use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bascule.base.turns import CrossLoopLock
from bascule.device.device import Device, open_device


class OwnDevice:
    """`borrowed`, which stays open, or what `opener` opens once for all callers, until `close`."""

    def __init__(
        self,
        borrowed: Device | None = None,
        opener: Callable[[], Awaitable[Device]] = open_device,
    ) -> None:
        self._borrowed = borrowed
        self._opener = opener
        self._opened: Device | None = None
        self._opening = CrossLoopLock()

    async def get(self) -> Device:
        """Return the device; a lost one that was opened here is reopened. Errors as `opener`."""
        if self._borrowed is not None:
            return self._borrowed
        async with self._opening.turn():
            if self._opened is not None and self._opened.lost:
                self.close()
            if self._opened is None:
                self._opened = await self._opener()
            return self._opened

    def close(self) -> None:
        """Close the device if it was opened here. Closing twice is fine."""
        device, self._opened = self._opened, None
        if device is not None:
            device.close()
