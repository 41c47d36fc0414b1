"""The capabilities of Safari by version, for plans about a browser that cannot be probed.

Used only with `browser_info`; probing is always more reliable. `SAFARI_TABLE` repeats, word for
word, the table of the FallbackManager that this one descends from, for the versions that it knew
(up to 18), and continues it. Its old rows are about WebGPU behind a developer flag: no Safari
before 26 has it on by default. What each version really ships is in `SAFARI_FACTS`, each with its
source, and `safari_capabilities` uses only those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bascule.backend.adapter import DEFAULT_LIMITS, WANTED_LIMITS
from bascule.machine.capabilities import Capabilities, from_facts
from bascule.machine.safari_facts import SAFARI_FACTS, Version

_FLAGS = ("jspi", "threads", "wasm_simd", "wasm_relaxed_simd", "opfs", "opfs_sync", "indexeddb")
_ADAPTER_FEATURES = ("shader-f16", "subgroups", "timestamp-query")
_OFF = "Safari has WebGPU on by default from version 26 on"


class Support(Enum):
    """A cell of the table, as it is printed."""

    NO = "❌ No"
    LIMITED = "⚠️ Limited"
    BASIC = "⚠️ Basic"
    PARTIAL = "⚠️ Partial"
    IMPROVED = "✅ Improved"
    ENHANCED = "✅ Enhanced"
    FULL = "✅ Full"

    @property
    def needs_fallback(self) -> bool:
        """Whether an operation that depends on it should fall back."""
        return not self.value.startswith("✅")


@dataclass(frozen=True, slots=True)
class SafariSupport:
    """A row of the table, valid from version `since`."""

    versions: str
    since: Version
    webgpu_tier: str
    four_bit: Support
    kv_cache: Support
    shader_compilation: Support
    memory_management: Support


_S = Support
# Oldest first.
SAFARI_TABLE = (
    SafariSupport("< 16.0", (0, 0), "Limited", _S.NO, _S.NO, _S.LIMITED, _S.BASIC),
    SafariSupport("16.0 - 16.3", (16, 0), "Tier 1", _S.PARTIAL, _S.NO, _S.LIMITED, _S.BASIC),
    SafariSupport("16.4 - 16.x", (16, 4), "Tier 1", _S.PARTIAL, _S.NO, _S.ENHANCED, _S.IMPROVED),
    SafariSupport("17.0+", (17, 0), "Tier 2", _S.PARTIAL, _S.PARTIAL, _S.IMPROVED, _S.ENHANCED),
    # WebGPU is on: Bascule's 4-bit weights and KV cache need only its core.
    SafariSupport("26.0+", (26, 0), "Tier 2", _S.FULL, _S.FULL, _S.IMPROVED, _S.ENHANCED),
)


def is_safari(browser_info: Mapping[str, Any] | None) -> bool:
    """Whether that is Safari, including "Mobile Safari" and the like."""
    return "safari" in str((browser_info or {}).get("name", "")).lower()


def safari_version(browser_info: Mapping[str, Any] | None) -> Version:
    """Return (major, minor) of "17", "17.4.1" or 17.4; otherwise (0, 0), to be safe."""
    result = re.match(r"\s*(\d{1,4})(?:\.(\d{1,4}))?", str((browser_info or {}).get("version", "")))
    return (int(result.group(1)), int(result.group(2) or 0)) if result else (0, 0)


def parse_safari_version(browser_info: Mapping[str, Any] | None) -> float:
    """Return the version as a float, for people; minor version 10 looks like 1."""
    return float("{}.{}".format(*safari_version(browser_info)))


def safari_support(browser_info: Mapping[str, Any] | None) -> SafariSupport | None:
    """Return the table's row for a Safari; None for another browser, or none."""
    if not is_safari(browser_info):
        return None
    version = safari_version(browser_info)
    return next(row for row in reversed(SAFARI_TABLE) if row.since <= version)


def safari_features(browser_info: Mapping[str, Any] | None) -> dict[str, bool]:
    """Whether that version ships each of `SAFARI_FACTS`, by name; empty for another browser."""
    if not is_safari(browser_info):
        return {}
    version = safari_version(browser_info)
    return {f.name: f.since is not None and f.since <= version for f in SAFARI_FACTS}


def safari_capabilities(browser_info: Mapping[str, Any] | None) -> Capabilities | None:
    """Return what probing would find in that Safari, in a worker of an isolated page, as far as
    known.

    Limits are those guaranteed by the specification. `dispatch` is unknown: nothing has run. None
    for another browser, or none.
    """
    ships = safari_features(browser_info)
    if not ships:
        return None
    flags = {name: ships[name] for name in _FLAGS}
    adapter = {
        "vendor": "apple",
        "software": False,
        "features": [name for name in _ADAPTER_FEATURES if ships[name]],
        # Chips from the A13 on have more: 32 KiB of workgroup memory, 1,024 invocations (WebKit's
        # HardwareCapabilities.mm).
        "limits": {name: DEFAULT_LIMITS[name] for name in WANTED_LIMITS},
        "wgsl_features": [],
    }
    version = ".".join(map(str, safari_version(browser_info)))
    return from_facts(
        {
            "host": "table",
            "engine": "javascriptcore",
            "versions": {"safari": version},
            "webnn": ["gpu"] if ships["webnn"] else [],
            **flags,
            **(adapter if ships["webgpu"] else {"problems": {"webgpu": _OFF}}),
        }
    )
