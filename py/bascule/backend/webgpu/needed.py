"""The pipelines that a model needs, stored so that the next visit compiles them during the start.

No browser serializes a compiled pipeline, so its inputs are stored. In a page, web/early.js reads
these entries and compiles them all at once while Pyodide boots. A pipeline is used only if its text
is the same, so an old list costs only time. Natively the entries are stored for inspection only:
Python is there first. wgpu-py 0.32 lists the feature "pipeline-cache" but has no call that uses it;
drivers such as Mesa's and NVIDIA's cache compiled shaders on disk themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from bascule import __version__
from bascule.backend.adapter import WANTED_LIMITS
from bascule.backend.webgpu.choices import machine_key, signature
from bascule.backend.webgpu.gpu import WANTED_FEATURES, AdapterInfo
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.base.entries import Entry, Remembered
from bascule.program.program import Call

REQUEST_KEY = "request"
_MAX_NAMES = 32


def digest_of(calls: Iterable[Call]) -> str:
    """Return a text that is equal for programs whose calls need the same pipelines on a device."""
    signatures = "\n".join(sorted({signature(call) for call in calls}))
    return hashlib.sha256(signatures.encode()).hexdigest()[:32]


async def remember_pipelines(
    pipelines: Pipelines, adapter: AdapterInfo, name: str, digest: str, kernels: Sequence[Kernel]
) -> None:
    """Store what model `name` needs, under its programs' digest."""
    remembered, machine = pipelines.choices.remembered, machine_key(adapter)
    entries = {kernel.digest: _entry(kernel, pipelines, "made") for kernel in kernels}
    # The device must be requested in the same words again, or its pipelines are useless.
    request: Entry = {
        "version": __version__,
        "limits": list(WANTED_LIMITS),
        "features": list(WANTED_FEATURES),
    }
    await _put(remembered, REQUEST_KEY, request)
    key = f"pipelines {machine} {digest}"
    before: Any = (await remembered.get(key) or {}).get("digests")
    if before != sorted(entries):
        await remembered.put(key, {"digests": sorted(entries), "pipelines": list(entries.values())})
    names: Any = (await remembered.get(f"models {machine}") or {}).get("names")
    others = {k: v for k, v in names.items() if k != name} if isinstance(names, dict) else {}
    latest = dict(list(others.items())[-_MAX_NAMES:])
    await _put(remembered, f"models {machine}", {"names": {**latest, name: digest}})


def _entry(kernel: Kernel, pipelines: Pipelines, outcome: str) -> Entry:
    return {
        "wgsl": kernel.wgsl,
        "constants": dict(kernel.constants),
        "bindings": kernel.bindings,
        "label": kernel.label,
        "compile_ms": pipelines.compile_ms.get(kernel.digest, 0.0),
        "outcome": outcome,
    }


async def _put(remembered: Remembered, key: str, entry: Entry) -> None:
    if await remembered.get(key) != entry:
        await remembered.put(key, entry)
