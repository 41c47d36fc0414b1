"""Open the two WebGPU tiers, and read an adapter's facts without opening them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bascule.backend.tiers import Tier
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import Choices
from bascule.base.entries import MemoryRemembered
from bascule.base.page_settings import IN_PAGE
from bascule.base.remembered import open_remembered

if TYPE_CHECKING:
    from bascule.backend.webgpu.gpu import Gpu


async def open_backend(tier: Tier, *, remember: bool, early: bool) -> WebGpuBackend:
    """See `TierInfo.open`."""
    limited = tier == "webgpu-limited"
    if IN_PAGE:
        from bascule.backend.webgpu.gpu_browser import open_browser

        gpu: Gpu = await open_browser(limited=limited, early=early)
    else:
        from bascule.backend.webgpu.gpu_native import open_native

        gpu = await open_native(limited=limited)
    remembered = await open_remembered() if remember else MemoryRemembered()
    return WebGpuBackend(gpu, await Choices.open(remembered, gpu.adapter))


async def facts() -> dict[str, Any]:
    """See `TierInfo.facts`."""
    from bascule.backend.webgpu.gpu_native import adapter_facts, find_adapter

    adapter, _ = await find_adapter()
    return adapter_facts(adapter.info, adapter.features, adapter.limits)
