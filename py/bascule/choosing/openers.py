"""Opening one tier by its name: a device, and a dispatch that proves that it computes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bascule.backend.base import TIERS, Backend, Tier
from bascule.backend.probe import probe_dispatch
from bascule.base.arguments import did_you_mean
from bascule.base.entries import MemoryRemembered
from bascule.base.page_settings import IN_PAGE
from bascule.base.remembered import open_remembered
from bascule.errors import InputError, TierUnavailableError

if TYPE_CHECKING:
    from bascule.backend.webgpu.gpu import Gpu
    from bascule.choosing.decisions import Decision
    from bascule.choosing.speed_records import Watch


@dataclass(frozen=True, slots=True)
class OpenedTier:
    """A tier that works, and why it was taken; `decision` has it all where it was chosen.

    `watch` holds a model's runs against what was predicted for it.
    """

    backend: Backend
    reason: str
    decision: Decision | None = None
    watch: Watch | None = None


@runtime_checkable
class OpenDevice(Protocol):
    """What is open: a `bascule.Device`."""

    @property
    def backend(self) -> Backend:
        """What runs programs there."""
        ...


async def open_named(tier: str, *, remember: bool = True) -> Backend:
    """Open that tier.

    InputError for an unknown name, TierUnavailableError for a known one that does not work here.
    """
    if tier not in TIERS:
        hint = did_you_mean(tier, ("auto", *TIERS))
        raise InputError("tier", f'"auto" or one of {", ".join(TIERS)}', repr(tier), hint=hint)
    opener = OPENERS.get(tier)
    if opener is None:
        raise TierUnavailableError(tier, f"this version has {', '.join(OPENERS)} only")
    return await opener(remember)


async def _open_webgpu(remember: bool, *, least: bool = False) -> Backend:
    from bascule.backend.webgpu.backend import WebGpuBackend
    from bascule.backend.webgpu.choices import Choices

    if IN_PAGE:
        from bascule.backend.webgpu.gpu_browser import open_browser

        gpu: Gpu = await open_browser(least=least)
    else:
        from bascule.backend.webgpu.gpu_native import open_native

        gpu = await open_native(least=least)
    remembered = await open_remembered() if remember else MemoryRemembered()
    return await _proven(WebGpuBackend(gpu, await Choices.open(remembered, gpu.adapter)))


async def _open_webnn(_: bool) -> Backend:
    from bascule.backend.webnn.backend import WebNnBackend

    if IN_PAGE:
        from bascule.backend.webnn.ml_browser import open_browser as open_ml
    else:
        from bascule.backend.webnn.ml_native import open_native as open_ml
    return await _proven(WebNnBackend(await open_ml()))


async def _open_wasm(_: bool) -> Backend:
    from bascule.backend.wasm.backend import WasmBackend

    if IN_PAGE:
        from bascule.backend.wasm.kernels_browser import open_browser as open_kernels
    else:
        from bascule.backend.wasm.kernels_native import open_native as open_kernels
    return await _proven(WasmBackend(open_kernels()))


async def _open_cpu(_: bool) -> Backend:
    from bascule.backend.cpu import ReferenceBackend
    from bascule.base.arrays import numpy_ready

    if not await numpy_ready():
        raise TierUnavailableError("cpu", "numpy is not there")
    return ReferenceBackend()


async def _proven(backend: Backend) -> Backend:
    """The backend, once a dispatch has given the right numbers."""
    try:
        await probe_dispatch(backend)
    except BaseException:
        backend.close()
        raise
    return backend


# Best first.
OPENERS: Mapping[Tier, Callable[[bool], Awaitable[Backend]]] = {
    "webgpu": _open_webgpu,
    "webgpu-limited": partial(_open_webgpu, least=True),
    "webnn": _open_webnn,
    "wasm": _open_wasm,
    "cpu": _open_cpu,
}
