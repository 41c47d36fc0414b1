"""Which tier runs: the best one whose real dispatch gives the right numbers."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bascule.backend.base import TIERS, Backend, Tier
from bascule.errors import BasculeError, InputError, TierUnavailableError
from bascule.tiers.probe import probe_dispatch

IN_PAGE = sys.platform == "emscripten"


@dataclass(frozen=True, slots=True)
class OpenedTier:
    """A tier that works, and why it was taken."""

    backend: Backend
    reason: str


async def open_tier(wanted: str) -> OpenedTier:
    """Open `wanted`, or for "auto" the best tier that works.

    InputError for an unknown name, TierUnavailableError for a known one that does not work here.
    """
    if wanted == "auto":
        return await _open_best()
    if wanted not in TIERS:
        raise InputError("tier", f'"auto" or one of {", ".join(TIERS)}', repr(wanted))
    opener = _OPENERS.get(wanted)
    if opener is None:
        raise TierUnavailableError(wanted, f"this version has {', '.join(_OPENERS)} only")
    return OpenedTier(await opener(), f"{wanted} was asked for")


async def _open_best() -> OpenedTier:
    refused: list[str] = []
    for tier, opener in _OPENERS.items():
        try:
            backend = await opener()
        except BasculeError as error:
            refused.append(f"{tier}: {getattr(error, 'reason', error)}")
            continue
        why = "a test dispatch gave the right numbers" if tier == "webgpu" else "it runs anywhere"
        before = f"; before it, {'; '.join(refused)}" if refused else ""
        return OpenedTier(backend, f"auto took {tier}: {why}{before}")
    raise TierUnavailableError("auto", "; ".join(refused))


async def _open_webgpu() -> Backend:
    from bascule.backend.webgpu.backend import WebGpuBackend

    if IN_PAGE:
        from bascule.backend.webgpu.gpu_browser import open_browser

        backend = WebGpuBackend(await open_browser())
    else:
        from bascule.backend.webgpu.gpu_native import open_native

        backend = WebGpuBackend(await open_native())
    try:
        await probe_dispatch(backend)
    except BaseException:
        backend.close()
        raise
    return backend


async def _open_cpu() -> Backend:
    from bascule.backend.reference import ReferenceBackend

    return ReferenceBackend()


# Best first.
_OPENERS: dict[Tier, Callable[[], Awaitable[Backend]]] = {
    "webgpu": _open_webgpu,
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
