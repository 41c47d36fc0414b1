"""The machine, or in a page the tab, that all CPU tiers share."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from bascule.backend.base import Backend

# A tab has no way to ask. Phones kill one at about 1.5 GB; a 32-bit WebAssembly heap ends at 4.
_TAB_NBYTES = 1500 << 20


def host_identity() -> str:
    """A text that changes with whatever could make CPU code faster or slower. Never parsed."""
    words = [sys.implementation.name, platform.python_version()]
    if sys.platform == "emscripten":
        from bascule.machine.host_browser import user_agent

        return " ".join([*words, user_agent()])
    cores = f"{os.cpu_count()} cores"
    return " ".join([*words, platform.platform(), platform.processor(), cores])


def identity_of(backend: Backend) -> str:
    """What a backend's speeds are remembered under."""
    adapter = backend.adapter
    return adapter.identity if adapter else f"{backend.device_name} {host_identity()}"


def free_nbytes() -> int | None:
    """Bytes that more data may take on this machine; None where the system does not tell."""
    if sys.platform == "emscripten":
        return _TAB_NBYTES
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, told = line.partition(":")
            if name == "MemAvailable":
                return int(told.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def is_busy() -> bool:
    """Whether others use the CPUs so much that what is measured now is no measure."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows and pages do not tell
        return False
