"""The processor's pressure as the page observes it (web/bridge/pressure.js)."""

from __future__ import annotations

from typing import Any, Literal

from bascule.base.bridge_browser import bridge_module


class PagePressure:
    """See `Pressure`. Reading the state crosses into JavaScript: some microseconds."""

    def __init__(self, watched: Any) -> None:
        self._watched = watched

    @property
    def state(self) -> Literal["nominal", "fair", "serious", "critical"]:
        return self._watched.state

    def close(self) -> None:
        self._watched.close()


async def watch(interval_ms: int) -> PagePressure | None:
    """Start listening; None if the browser or the page's policy does not allow it."""
    module = await bridge_module("bridge/pressure.js")
    watched = await module.watchPressure(interval_ms)
    return PagePressure(watched) if watched else None
