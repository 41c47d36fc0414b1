"""Opening the WebAssembly tier."""

from __future__ import annotations

from typing import Any

from bascule.backend.tiers import Tier
from bascule.backend.wasm.backend import WasmBackend
from bascule.base.page_settings import IN_PAGE


async def open_backend(tier: Tier, *, remember: bool, early: bool) -> WasmBackend:
    """See `TierInfo.open`."""
    del tier, remember, early
    if IN_PAGE:
        from bascule.backend.wasm.kernels_browser import open_browser as open_kernels
    else:
        from bascule.backend.wasm.kernels_native import open_native as open_kernels
    return WasmBackend(open_kernels())


async def facts() -> dict[str, Any]:
    """See `TierInfo.facts`."""
    from bascule.backend.wasm.kernels_native import simd_facts

    return simd_facts()
