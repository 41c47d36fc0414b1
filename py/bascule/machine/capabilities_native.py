"""The facts of a native machine: wgpu-py's adapter, the operating system's memory and cores."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from bascule import __version__
from bascule.backend.tiers import TABLE
from bascule.errors import TierUnavailableError
from bascule.machine.pressure import has_linux_pressure

_PACKAGES = ("numpy", "wgpu")
# What only a page has, or a tier that may be missing.
_ABSENT = ("jspi", "wasm_simd", "wasm_relaxed_simd", "opfs", "opfs_sync", "indexeddb")
# Where Linux has a container's share; "max" without a limit.
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


async def native_facts() -> dict[str, Any]:
    """See `Capabilities`."""
    facts: dict[str, Any] = {
        "host": "native",
        "engine": platform.python_implementation().lower(),
        "threads": True,
        "n_cores": _n_cores(),
        "compute_pressure": has_linux_pressure(),
        "device_memory_nbytes": memory_nbytes(),
        "versions": _versions(),
        **dict.fromkeys(_ABSENT, False),
    }
    problems: dict[str, str] = {}
    for row in TABLE:
        if row.better is None:  # else it is the same device's
            try:
                facts |= await row.facts()
            except TierUnavailableError as error:
                problems[row.name] = error.reason
    return {"webnn": [], **facts, "problems": problems}


def memory_nbytes() -> int | None:
    """Physical memory, or this container's share of it; None where the system does not tell."""
    sizes: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min((size for size in sizes if size > 0), default=None)


def _n_cores() -> int | None:
    with suppress(AttributeError, OSError):  # Linux alone knows what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _versions() -> dict[str, str]:
    results = {"bascule": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            results[name] = metadata.version(name)
    return results
