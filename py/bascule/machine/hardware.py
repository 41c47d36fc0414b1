"""The accelerators of a machine, from the files of their drivers and libraries: nothing is loaded.

For reports: Bascule computes only through WebGPU, WebNN, WebAssembly and numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bascule.base.page_settings import IN_PAGE


@dataclass(frozen=True, slots=True)
class Hardware:
    """An accelerator or its API. `present` and `memory_nbytes` are None if unknown; `source` says
    what was found, or why it is unknown.
    """

    name: str
    present: bool | None
    source: str
    memory_nbytes: int | None = None


# By name: driver files or folders below the root, libraries, Python packages.
_SIGNS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "cuda": (("proc/driver/nvidia/version", "dev/nvidiactl"), ("cuda", "nvcuda"), ()),
    "rocm": (("dev/kfd", "opt/rocm"), ("amdhip64",), ()),
    "mps": (("System/Library/Frameworks/Metal.framework",), (), ()),
    "vulkan": ((), ("vulkan", "vulkan-1"), ()),
    "openvino": ((), ("openvino",), ("openvino",)),
    "npu": (("dev/accel/accel0", "dev/apex_0"), (), ()),
}
_UNKNOWN = "unknown: a page cannot look for drivers"


def detect_hardware(
    root: Path = Path("/"), libraries: Callable[[str], str | None] = find_library
) -> tuple[Hardware, ...]:
    """Look for CUDA, ROCm, MPS (Metal), Vulkan, OpenVINO and NPUs; all unknown in a page."""
    if IN_PAGE:
        return tuple(Hardware(name, None, _UNKNOWN) for name in _SIGNS)
    return tuple(_look(name, root, libraries) for name in _SIGNS)


def _look(name: str, root: Path, libraries: Callable[[str], str | None]) -> Hardware:
    files, names, packages = _SIGNS[name]
    if name == "mps" and sys.platform != "darwin" and not (root / files[0]).exists():
        return Hardware(name, False, f"derived: the system is {sys.platform}")
    for file in files:
        if (root / file).exists():
            return Hardware(name, True, f"reported by /{file}", _memory_nbytes(name, root))
    for library in names:
        if result := libraries(library):
            # Only a driver's files show a device: the library may be installed without one.
            present = True if name in ("vulkan", "openvino") else None
            return Hardware(name, present, f"reported by the library {result}")
    for package in packages:
        if find_spec(package) is not None:
            return Hardware(name, True, f"reported by the Python package {package}")
    return Hardware(name, False, "derived: neither driver files nor libraries were found")


def _memory_nbytes(name: str, root: Path) -> int | None:
    """Read AMD's driver; NVIDIA's reports memory only through its own library."""
    if name != "rocm":
        return None
    result = 0
    for file in root.glob("sys/class/drm/card*/device/mem_info_vram_total"):
        try:
            result += int(file.read_text("ascii"))
        except (OSError, ValueError):
            continue
    return result or None
