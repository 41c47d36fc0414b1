"""A key that changes with the state of a machine, computed without opening a device."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import time

from bascule import __version__
from bascule.machine.host import host_identity

_PACKAGES = ("numpy", "wgpu", "wasmtime", "pywebnn")
# Variables that affect Vulkan's loader, Mesa, NVIDIA's driver and wgpu.
_STEERING = (
    "VK_", "WGPU", "MESA_", "LIBGL_", "GALLIUM_", "LP_", "DRI_", "AMD_", "RADV_", "INTEL_", "CUDA_",
    "NVIDIA_", "__NV_", "__GLX_", "__VK_",
)  # fmt: skip
# Where drivers register, on Linux and Windows; on macOS a driver comes with the release, which is
# part of the host's identity.
_DRIVERS = (
    "/etc/vulkan/icd.d/*",
    "/etc/vulkan/implicit_layer.d/*",
    "/usr/share/vulkan/icd.d/*",
    "/usr/local/share/vulkan/icd.d/*",
    "/usr/lib/*/libvulkan*.so*",
    "/usr/lib/*/libLLVM*.so*",
    "/usr/lib64/libvulkan*.so*",
    "/dev/dri/*",
    "/dev/nvidia[0-9]*",
    "/Windows/System32/DriverStore/FileRepository",
)
_DESCRIBED = (
    "/sys/class/drm/card*/device/vendor",
    "/sys/class/drm/card*/device/device",
    "/proc/driver/nvidia/version",
)
_LONGEST = 1 << 12
_WEEK_S = 7 * 86_400


def machine_key(environment: Mapping[str, str] | None = None, root: Path | None = None) -> str:
    """Return a text that changes with GPUs, drivers, packages and their settings; only compared.

    Takes a few milliseconds. A page knows only its browser, so its key also changes every week.
    `root` replaces the file system's root.
    """
    if sys.platform == "emscripten":
        return repr((__version__, host_identity(), int(time() / _WEEK_S)))
    variables = os.environ if environment is None else environment
    place = root or Path("/")
    steering = sorted((n, v) for n, v in variables.items() if n.startswith(_STEERING))
    words = (host_identity(), steering, _versions(), _address_space())
    return repr((__version__, words, _stamps(place, _DRIVERS), _texts(place, _DESCRIBED)))


def _versions() -> list[tuple[str, str]]:
    results: list[tuple[str, str]] = []
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            results.append((name, metadata.version(name)))
    return results


def _address_space() -> int:
    """Return this process's address space limit; wasmtime reserves much of it."""
    try:
        import resource
    except ImportError:  # Windows
        return -1
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def _stamps(root: Path, patterns: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return name, time and size of each file; for a device its number instead of the time."""
    results: list[tuple[str, int, int]] = []
    for path in _matching(root, patterns):
        with suppress(OSError):
            stat = path.stat()
            number = stat.st_rdev
            results.append((str(path), number or stat.st_mtime_ns, 0 if number else stat.st_size))
    return results


def _texts(root: Path, patterns: Sequence[str]) -> list[tuple[str, str]]:
    results: list[tuple[str, str]] = []
    for path in _matching(root, patterns):
        with suppress(OSError), path.open("rb") as file:
            results.append((str(path), file.read(_LONGEST).decode("utf-8", "replace")))
    return results


def _matching(root: Path, patterns: Sequence[str]) -> list[Path]:
    with suppress(OSError):
        return sorted(path for p in patterns for path in root.glob(p.lstrip("/")))
    return []
