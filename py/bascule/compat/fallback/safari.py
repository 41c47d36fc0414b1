"""What the version of a Safari tells, by the names that the fallback guide gave the questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.machine.safari import parse_safari_version, safari_features

# What its WebGPU makes of Metal.
_METAL = ("webgpu", "shader-f16", "subgroups", "timestamp-query")


class SafariVersion:
    """Questions to whoever has a `browser_info`."""

    browser_info: Mapping[str, Any]

    def _parse_safari_version(self) -> float:
        """The version, 17.4 for "17.4.1"; 0.0 where none can be read."""
        return parse_safari_version(self.browser_info)

    def _detect_metal_features(self) -> dict[str, bool]:
        """Whether that Safari ships WebGPU and each of its features that rest on Metal's.

        By the features' WebGPU names; all False for another browser.
        """
        ships = safari_features(self.browser_info)
        return {name: ships.get(name, False) for name in _METAL}
