"""Features of Chrome, Edge, Firefox and Safari by version, each with its source.

Used only for a browser given by name and version: probing is always more reliable. The versions are
those of the desktop, from MDN's browser-compat-data 8.1.9 (November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.machine.safari import safari_version
from bascule.machine.safari_facts import SAFARI_FACTS, SafariFact

_BCD = "https://github.com/mdn/browser-compat-data/blob/main/"
_ADAPTER = _BCD + "api/GPUSupportedFeatures.json"
# The source of each fact, and the first version of Chrome, Edge and Firefox with it on by default;
# None: no version yet.
_FACTS: Mapping[str, tuple[str, tuple[int | None, int | None, int | None]]] = {
    # Chrome and Edge: ChromeOS, macOS and Windows; Linux (Intel Gen 12) from 144. Firefox:
    # Windows; macOS on Apple silicon from 145, older ones from 147; not Linux.
    "webgpu": (_BCD + "api/GPU.json", (113, 113, 141)),
    "shader-f16": (_ADAPTER, (120, 120, None)),
    "timestamp-query": (_ADAPTER, (121, 121, None)),
    "subgroups": (_ADAPTER, (134, 134, None)),
    "jspi": (_BCD + "webassembly/jspi.json", (137, 137, 153)),
    # Requires the cross-origin isolation headers.
    "threads": (_BCD + "webassembly/threads-and-atomics.json", (74, 79, 79)),
    "wasm_simd": (_BCD + "webassembly/fixed-width-SIMD.json", (91, 91, 89)),
    "wasm_relaxed_simd": (_BCD + "webassembly/relaxed-SIMD.json", (114, 114, 146)),
    "opfs": (_BCD + "api/StorageManager.json", (86, 86, 111)),
    "opfs_sync": (_BCD + "api/FileSystemFileHandle.json", (102, 102, 111)),
    "opfs_writable": (_BCD + "api/FileSystemFileHandle.json", (86, 86, 111)),
    "indexeddb": (_BCD + "api/IDBDatabase.json", (24, 12, 16)),
    # In Chrome and Edge behind a switch since 112.
    "webnn": (_BCD + "api/ML.json", (None, None, None)),
    "device_memory": (_BCD + "api/Navigator.json", (63, 79, None)),
    "compute_pressure": (_BCD + "api/PressureObserver.json", (125, 125, None)),
}
_NAMES = ("chrome", "edge", "firefox")


def _facts(column: int) -> tuple[SafariFact, ...]:
    rows = ((name, source, since[column]) for name, (source, since) in _FACTS.items())
    return tuple(
        SafariFact(name, None if since is None else (since, 0), source)
        for name, source, since in rows
    )


BROWSER_FACTS: Mapping[str, tuple[SafariFact, ...]] = {
    **{name: _facts(column) for column, name in enumerate(_NAMES)},
    "safari": SAFARI_FACTS,
}


def browser_features(browser_info: Mapping[str, Any] | None) -> dict[str, bool]:
    """Whether a browser's version has each feature; empty for a browser that is not listed.

    `browser_info` has "name" ("chrome", "Microsoft Edge", "firefox", "safari", ...) and "version".
    An unknown version has only what every version has.
    """
    name = str((browser_info or {}).get("name", "")).lower()
    row = next((row for row in BROWSER_FACTS if row in name), None)
    if row is None:
        return {}
    version = safari_version(browser_info)
    return {f.name: f.since is not None and f.since <= version for f in BROWSER_FACTS[row]}
