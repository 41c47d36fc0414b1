"""`bascule doctor`: what this machine has and what works on it."""

from __future__ import annotations

import platform as host
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from bascule import __version__
from bascule.errors import TierUnavailableError
from bascule.folders import cache_folder, models_folder
from bascule.tiers.auto import report_tiers

_PACKAGES = ("numpy", "wgpu", "tokenizers")


async def examine() -> dict[str, Any]:
    """A report of plain values: versions, tiers with reasons, adapters with limits, folders."""
    return {
        "versions": _versions(),
        "tiers": [
            {"tier": t.tier, "works": t.works, "device": t.device_name, "reason": t.reason}
            for t in await report_tiers()
        ],
        "adapters": await _adapters(),
        "folders": [
            _folder("cache", cache_folder()),
            _folder("models", models_folder()),
            _folder("pyodide", cache_folder() / "pyodide"),
        ],
    }


def _versions() -> dict[str, str]:
    found = {"bascule": __version__, "python": host.python_version(), "platform": sys.platform}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


async def _adapters() -> list[dict[str, Any]]:
    from bascule.backend.webgpu.gpu_native import open_native

    try:
        gpu = await open_native()
    except TierUnavailableError:
        return []
    adapter = gpu.adapter
    gpu.destroy()
    return [
        {
            "name": adapter.name,
            "vendor": adapter.vendor,
            "backend": adapter.backend,
            "software": adapter.software,
            "features": sorted(adapter.features),
            "limits": dict(adapter.limits),
        }
    ]


def _folder(name: str, path: Path) -> dict[str, Any]:
    sizes = [f.stat().st_size for f in path.rglob("*") if f.is_file()] if path.is_dir() else []
    return {"name": name, "path": str(path), "exists": path.is_dir(), "nbytes": sum(sizes)}
