"""The browser, by what it reports about itself."""

from __future__ import annotations

import js


def user_agent() -> str:
    """Return a text that changes with every version; a key for measurements only."""
    return str(js.navigator.userAgent)


def device_memory_nbytes() -> int | None:
    """Return `navigator.deviceMemory` in bytes; None in browsers without it (Firefox, Safari)."""
    memory = getattr(js.navigator, "deviceMemory", None)
    return int(memory * (1 << 30)) if isinstance(memory, int | float) else None
