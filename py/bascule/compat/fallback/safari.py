"""What follows from a Safari's version, under the names of the fallback guide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.machine.safari import parse_safari_version, safari_features

# WebGPU and its features that use Metal's.
_METAL = ("webgpu", "shader-f16", "subgroups", "timestamp-query")


class SafariVersion:
    """Base of classes with a `browser_info`."""

    browser_info: Mapping[str, Any]

    def _parse_safari_version(self) -> float:
        """The version, such as 17.4 for "17.4.1"; 0.0 if there is none."""
        return parse_safari_version(self.browser_info)

    def _detect_metal_features(self) -> dict[str, bool]:
        """Whether that Safari ships WebGPU and its features that use Metal's, by WebGPU names.

        All False for another browser.
        """
        ships = safari_features(self.browser_info)
        return {name: ships.get(name, False) for name in _METAL}
