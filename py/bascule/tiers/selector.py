"""Which tier runs: the best one whose real dispatch gives the right numbers."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bascule.backend.base import TIERS, Backend, Tier
from bascule.errors import BasculeError, InputError, TierUnavailableError
from bascule.remembered import MemoryRemembered, open_remembered
from bascule.tiers.probe import probe_dispatch

if TYPE_CHECKING:
    from bascule.backend.webgpu.gpu import Gpu

IN_PAGE = sys.platform == "emscripten"


@dataclass(frozen=True, slots=True)
class OpenedTier:
    """A tier that works, and why it was taken."""

    backend: Backend
    reason: str


async def open_tier(wanted: str, *, remember: bool = True) -> OpenedTier:
    """Open `wanted`, or for "auto" the best tier that works.

    `remember` keeps what is learned of the device (kernels that are fast, or fail) between runs.
    InputError for an unknown name, TierUnavailableError for a known one that does not work here.
    """
    if wanted == "auto":
        return await _open_best(remember)
    if wanted not in TIERS:
        raise InputError("tier", f'"auto" or one of {", ".join(TIERS)}', repr(wanted))
    opener = _OPENERS.get(wanted)
    if opener is None:
        raise TierUnavailableError(wanted, f"this version has {', '.join(_OPENERS)} only")
    return OpenedTier(await opener(remember), f"{wanted} was asked for")


async def _open_best(remember: bool) -> OpenedTier:
    refused: list[str] = []
    for tier, opener in _OPENERS.items():
        if tier == "wasm" and not IN_PAGE:
            continue  # outside a page numpy's BLAS is faster
        try:
            backend = await opener(remember)
        except BasculeError as error:
            refused.append(f"{tier}: {getattr(error, 'reason', error)}")
            continue
        why = "it runs anywhere" if tier == "cpu" else "a test dispatch gave the right numbers"
        before = f"; before it, {'; '.join(refused)}" if refused else ""
        return OpenedTier(backend, f"auto took {tier}: {why}{before}")
    raise TierUnavailableError("auto", "; ".join(refused))


async def _open_webgpu(remember: bool) -> Backend:
    from bascule.backend.webgpu.backend import WebGpuBackend
    from bascule.backend.webgpu.choices import Choices

    if IN_PAGE:
        from bascule.backend.webgpu.gpu_browser import open_browser

        gpu: Gpu = await open_browser()
    else:
        from bascule.backend.webgpu.gpu_native import open_native

        gpu = await open_native()
    remembered = await open_remembered() if remember else MemoryRemembered()
    return await _proven(WebGpuBackend(gpu, await Choices.open(remembered, gpu.adapter)))


async def _open_wasm(_: bool) -> Backend:
    from bascule.backend.wasm.backend import WasmBackend

    if IN_PAGE:
        from bascule.backend.wasm.kernels_browser import open_browser as open_kernels
    else:
        from bascule.backend.wasm.kernels_native import open_native as open_kernels
    return await _proven(WasmBackend(open_kernels()))


async def _open_cpu(_: bool) -> Backend:
    from bascule.backend.cpu import ReferenceBackend

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
_OPENERS: dict[Tier, Callable[[bool], Awaitable[Backend]]] = {
    "webgpu": _open_webgpu,
    "wasm": _open_wasm,
    "cpu": _open_cpu,
}


@dataclass(frozen=True, slots=True)
class TierReport:
    """What `bascule doctor` says of one tier."""

    tier: Tier
    works: bool
    device_name: str
    reason: str


async def report_tiers() -> list[TierReport]:
    """Try every tier in turn."""
    reports: list[TierReport] = []
    for tier in TIERS:
        try:
            opened = await open_tier(tier)
        except BasculeError as error:
            reports.append(TierReport(tier, False, "", str(getattr(error, "reason", error))))
            continue
        reports.append(TierReport(tier, True, opened.backend.device_name, "works"))
        opened.backend.close()
    return reports
