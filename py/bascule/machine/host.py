"""The machine, or in a page the tab, that all CPU tiers share."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from bascule.backend.base import Backend
from bascule.machine.facts import memory_budget

# A container's memory limit on Linux; "max" if there is none.
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# The address space of a 32-bit WebAssembly memory.
_WASM_NBYTES = 4 << 30


def host_identity() -> str:
    """Return a text that changes with what affects the speed of CPU code; only compared."""
    words = [sys.implementation.name, platform.python_version()]
    if sys.platform == "emscripten":
        from bascule.machine.host_browser import user_agent

        return " ".join([*words, user_agent()])
    cores = f"{os.cpu_count()} cores"
    return " ".join([*words, platform.platform(), platform.processor(), cores])


def identity_of(backend: Backend) -> str:
    """Return the key of a backend's remembered speeds."""
    adapter = backend.adapter
    return adapter.identity if adapter else f"{backend.device_name} {host_identity()}"


# With less free memory than this there is no room for models beside other programs.
LITTLE_NBYTES = 1 << 30


def free_nbytes() -> int | None:
    """Return the bytes that are free for more data; None if unknown.

    A page cannot ask for free memory: there it is the tab's budget.
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
    """Return the physical memory, or this container's share; None if it is not reported."""
    sizes: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min((size for size in sizes if size > 0), default=None)


def tab_nbytes(memory_nbytes: int | None) -> int:
    """Return the bytes for models in a page's WebAssembly, from the machine's memory if known."""
    return min(memory_budget("page", memory_nbytes, None), _WASM_NBYTES)


def is_busy() -> bool:
    """Whether the machine is too loaded to benchmark."""
    try:
        return os.getloadavg()[0] > (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows and pages have no load average
        return False
