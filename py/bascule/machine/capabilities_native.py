"""The facts of a native machine: wgpu-py's adapter, the operating system's memory and cores."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

from bascule import __version__
from bascule.backend.tiers import TABLE
from bascule.errors import TierUnavailableError
from bascule.machine.host import memory_nbytes
from bascule.machine.pressure import has_linux_pressure

_PACKAGES = ("numpy", "wgpu")
# What only a page has, or a tier that may be missing.
_ABSENT = ("jspi", "wasm_simd", "wasm_relaxed_simd", "opfs", "opfs_sync", "indexeddb")


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
        if row.chosen and row.better is None:  # else it is the same device's
            try:
                facts |= await row.facts()
            except TierUnavailableError as error:
                problems[row.name] = error.reason
    return {"webnn": [], **facts, "problems": problems}


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
