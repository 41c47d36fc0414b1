"""The machine, or in a page the tab, that all CPU tiers share."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from bascule.backend.base import Backend
from bascule.machine.facts import memory_budget

# Where Linux has a container's share; "max" without a limit.
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# What a 32-bit WebAssembly memory can address.
_WASM_NBYTES = 4 << 30


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


# Less free memory than this is too little for models beside other programs.
LITTLE_NBYTES = 1 << 30


def free_nbytes() -> int | None:
    """Return the bytes that more data may take on this machine; None where that is unknown.

    A page cannot ask what is free: there it is the budget of its tab.
    """
    if sys.platform == "emscripten":
        from bascule.machine.host_browser import device_memory_nbytes

        return tab_nbytes(device_memory_nbytes())
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    return memory_nbytes()


def memory_nbytes() -> int | None:
    """Physical memory, or this container's share of it; None where it is not reported."""
    sizes: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min((size for size in sizes if size > 0), default=None)


def tab_nbytes(memory_nbytes: int | None) -> int:
    """Return the bytes that models may take in a page's WebAssembly, on a machine of that memory
    (None: unknown).
    """
    return min(memory_budget("page", memory_nbytes, None), _WASM_NBYTES)


def is_busy() -> bool:
    """Return whether the machine is too loaded to benchmark."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows and pages have no load average
        return False
