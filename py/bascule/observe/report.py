"""`bascule doctor`: what this machine has and what works on it."""

from __future__ import annotations

import os
import platform as host
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from bascule import __version__
from bascule.base.folders import cache_folder, models_folder
from bascule.choosing.auto import ModelNeed, decision_for
from bascule.choosing.decisions import software_warning
from bascule.choosing.openers import open_named
from bascule.choosing.survey import TierFacts, survey
from bascule.choosing.switches import read_switches
from bascule.choosing.workload import WorkloadCharacteristics
from bascule.compat.selector import IntelligentBackendSelector
from bascule.errors import TierUnavailableError
from bascule.machine.capabilities import capabilities

_PACKAGES = ("numpy", "wgpu", "tokenizers")
# Rows and columns of products that show where the GPU becomes faster.
_SIDES = (16, 64, 256, 1024, 4096)
_MODELS = (ModelNeed("a small encoder"), ModelNeed("a small chat model", "blocks"))


async def examine() -> dict[str, Any]:
    """Return plain values: versions, tiers with reasons, adapters, capabilities, folders.

    A new machine is measured first (see `bascule.choosing.survey`).
    """
    result = await survey(read_switches(), fresh=True)
    selector = IntelligentBackendSelector(known=result)
    return {
        "versions": _versions(),
        "tiers": [_tier(facts) for facts in result.tiers],
        "warning": software_warning(result.tiers),
        "decisions": [
            *(_decision(selector, side) for side in _SIDES),
            *(decision_for(result.tiers, need).as_json() for need in _MODELS),
        ],
        "adapters": await _adapters(),
        "capabilities": (await capabilities()).as_json(),
        "folders": [
            _folder("cache", cache_folder()),
            _folder("models", models_folder()),
            _folder("pyodide", cache_folder() / "pyodide"),
        ],
    }


def _tier(facts: TierFacts) -> dict[str, Any]:
    fields = facts.as_json()
    return fields | {"reason": facts.refused or "works"}


def _decision(selector: IntelligentBackendSelector, side: int) -> dict[str, Any]:
    workload = WorkloadCharacteristics("matmul", side * side, (side, side))
    with suppress(TierUnavailableError):  # the decision says so
        selector.select_backend(workload)
    return selector.decisions[-1].as_json()


def _versions() -> dict[str, str]:
    results = {"bascule": __version__, "python": host.python_version(), "platform": sys.platform}
    for name in _PACKAGES:
        try:
            results[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            results[name] = "not installed"
    return results


async def _adapters() -> list[dict[str, Any]]:
    try:
        backend = await open_named("webgpu")
    except TierUnavailableError:
        return []
    adapter, wrong = backend.adapter, backend.wrong_kernels
    backend.close()
    assert adapter is not None  # a GPU's tier has one
    return [
        {
            "wrong_kernels": wrong,
            "name": adapter.name,
            "vendor": adapter.vendor,
            "backend": adapter.backend,
            "software": adapter.software,
            "features": sorted(adapter.features),
            "limits": dict(adapter.limits),
        }
    ]


def _folder(name: str, path: Path) -> dict[str, Any]:
    """Return a folder's size; what may not be read does not count."""
    nbytes = 0
    for where, _, files in os.walk(path):
        with suppress(OSError):
            nbytes += sum(os.lstat(os.path.join(where, file)).st_size for file in files)
    return {"name": name, "path": str(path), "exists": os.path.isdir(path), "nbytes": nbytes}
