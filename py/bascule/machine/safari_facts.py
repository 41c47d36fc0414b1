"""Features of Safari by version, each with its source.

The versions are those of macOS and iOS alike, from MDN's browser-compat-data 8.1.9 (November 2026)
if no other source is given.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int]

_MDN = "https://developer.mozilla.org/docs/"
_BCD = "https://github.com/mdn/browser-compat-data/blob/main/"


@dataclass(frozen=True, slots=True)
class SafariFact:
    """A feature, and the first version that has it on by default; None: no version yet."""

    name: str
    since: Version | None
    source: str


SAFARI_FACTS = (
    # In workers as well. Safari 26 on an older macOS has it off, behind a developer flag
    # (https://github.com/Fyrd/caniuse/issues/7390).
    SafariFact("webgpu", (26, 0), "https://webkit.org/blog/17333/webkit-features-in-safari-26-0/"),
    SafariFact("shader-f16", (26, 0), _BCD + "api/GPUSupportedFeatures.json"),
    SafariFact("timestamp-query", (26, 0), _BCD + "api/GPUSupportedFeatures.json"),
    # GPUAdapterInfo has subgroupMinSize and subgroupMaxSize only since then.
    SafariFact("subgroups", (27, 3), "https://github.com/WebKit/WebKit/pull/68713"),
    SafariFact("jspi", (27, 0), "https://webkit.org/blog/18325/webkit-features-for-safari-27-0/"),
    # SharedArrayBuffer and shared WASM memory, which require the cross-origin isolation headers.
    SafariFact(
        "threads", (15, 2), "https://webkit.org/blog/12140/new-webkit-features-in-safari-15-2/"
    ),
    SafariFact(
        "wasm_simd", (16, 4), "https://webkit.org/blog/13966/webkit-features-in-safari-16-4/"
    ),
    SafariFact("wasm_relaxed_simd", (27, 3), _BCD + "webassembly/relaxed-SIMD.json"),
    SafariFact("opfs", (15, 2), _MDN + "Web/API/StorageManager/getDirectory"),
    SafariFact("opfs_sync", (15, 2), _MDN + "Web/API/FileSystemFileHandle/createSyncAccessHandle"),
    SafariFact("opfs_writable", (26, 0), _MDN + "Web/API/FileSystemFileHandle/createWritable"),
    SafariFact("indexeddb", (8, 0), _MDN + "Web/API/IDBDatabase"),
    SafariFact("webnn", None, _BCD + "api/ML.json"),
    SafariFact("device_memory", None, _MDN + "Web/API/Navigator/deviceMemory"),
    SafariFact("compute_pressure", None, _BCD + "api/PressureObserver.json"),
)
