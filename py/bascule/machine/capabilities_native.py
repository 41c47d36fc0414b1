"""The facts of a native machine: wgpu-py's adapter, the operating system's memory and cores."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from bascule import __version__
from bascule.backend.webgpu.gpu_native import FEATURE_SPELLING, find_adapter, open_native
from bascule.errors import TierUnavailableError
from bascule.machine.pressure import has_linux_pressure

open_gpu = open_native

_PACKAGES = ("numpy", "wgpu")
# What only a page can have.
_ABSENT = ("jspi", "wasm_simd", "wasm_relaxed_simd", "opfs", "opfs_sync", "indexeddb")
_SPECIFIED = {theirs: specified for specified, theirs in FEATURE_SPELLING.items()}
# Where Linux tells a container's share; "max" where it has all.
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
    facts |= {"webnn": await _neural_devices(problems), "problems": problems}
    try:
        adapter, _ = await find_adapter()
    except TierUnavailableError as error:
        problems["webgpu"] = error.reason
        return facts
    return facts | adapter_facts(adapter.info, adapter.features, adapter.limits)


async def _neural_devices(problems: dict[str, str]) -> list[str]:
    """The kinds of device for which WebNN makes a context."""
    try:
        from bascule.backend.webnn.ml_native import open_native as open_webnn

        (await open_webnn()).close()
    except (ImportError, TierUnavailableError) as error:  # the former without numpy
        problems["webnn"] = getattr(error, "reason", str(error))
        return []
    return ["cpu"]  # the one that the driver asks for


def adapter_facts(
    info: Mapping[str, Any], features: Any, limits: Mapping[str, int]
) -> dict[str, Any]:
    """What wgpu-py tells of an adapter, in the words of the specification."""

    def subgroup_size(which: str) -> Any:
        # wgpu-py 0.32 misspells it.
        return info.get(f"subgroup_{which}_size", info.get(f"stackgroup_{which}_size"))

    return {
        **{name: info.get(name) for name in ("vendor", "architecture", "device")},
        # The specification's description is the driver's name and version here.
        "driver": info.get("description"),
        "backend": info.get("backend_type"),
        "software": info.get("adapter_type") == "CPU",
        "features": [_SPECIFIED.get(name, name) for name in features],
        "limits": {_camel(name): value for name, value in limits.items()},
        "subgroup_min_size": subgroup_size("min"),
        "subgroup_max_size": subgroup_size("max"),
    }


def memory_nbytes() -> int | None:
    """Physical memory, or this container's share of it; None where the system does not tell."""
    sizes: list[int] = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii")))
    return min((size for size in sizes if size > 0), default=None)


def _camel(name: str) -> str:
    head, *rest = name.split("-")
    return head + "".join(part.title() for part in rest)


def _n_cores() -> int | None:
    with suppress(AttributeError, OSError):  # Linux alone knows what this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _versions() -> dict[str, str]:
    found = {"bascule": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
