"""Recover from a lost device (reopen it, then another tier) and a wrong one (another tier)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

from bascule.backend.base import DESTROYED, Backend, Tier
from bascule.choosing.auto import ModelNeed, open_best, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.choosing.switches import read_switches
from bascule.choosing.workload import BackendType
from bascule.errors import DeviceLostError, TierUnavailableError

# After a crash of its GPU process a browser needs a moment until it offers an adapter again.
WAITS_S = (0.0, 0.25, 1.0, 4.0)
# Windows stops a machine after five resets in a minute, browsers block a page after two or three.
_MAX_REOPENINGS, _WITHIN_S = 2, 60.0


class Recovery:
    """Reopens a lost device for kernels, buffers and arrays: at most twice a minute."""

    def __init__(self, wanted: str | Sequence[str]) -> None:
        self._wanted = wanted
        self._times: deque[float] = deque(maxlen=_MAX_REOPENINGS)

    async def reopen(self, lost: Backend) -> OpenedTier:
        """Open a device in place of that one. DeviceLostError if devices are lost too often,
        TierUnavailableError if none opens.
        """
        now = monotonic()
        if len(self._times) == _MAX_REOPENINGS and now - self._times[0] < _WITHIN_S:
            often = f"{lost.lost}; {_MAX_REOPENINGS + 1} losses within {_WITHIN_S:.0f} s"
            hint = "Look for what ends the device, such as a loop without an end in a kernel; wait."
            raise DeviceLostError(often, hint=hint)
        self._times.append(now)
        return await reopen_tier(self._wanted, lost.tier, lost.lost)


def is_lost(backend: Backend) -> bool:
    """Whether its device was lost; one closed by its own program was not."""
    return bool(backend.lost) and backend.lost != DESTROYED


async def reopen_tier(
    wanted: str | Sequence[str], lost: Tier, why: str, need: ModelNeed | None = None
) -> OpenedTier:
    """Reopen the tier `lost`, with retries; then, if `wanted` is "auto" or several, what that gives
    now. TierUnavailableError if none opens.
    """
    try:
        result = await _patiently(lost)
    except TierUnavailableError:
        if isinstance(wanted, str) and wanted != "auto":
            raise
        other = await open_tier(wanted, need)
        return OpenedTier(other.backend, f"{other.reason}; the device of {lost} was lost ({why})")
    return OpenedTier(result.backend, f"opened again after its device was lost ({why})")


async def open_another(
    wanted: str | Sequence[str], wrong: Mapping[Tier, str], need: ModelNeed
) -> OpenedTier:
    """Open another tier than the `wrong` ones (each with its reason): for "auto" the fastest,
    otherwise the first of `wanted`. TierUnavailableError if none is left, or one was asked for.
    """
    if not isinstance(wanted, str) and set(wanted) - set(wrong):
        return await open_tier([tier for tier in wanted if tier not in wrong], need)
    switches = read_switches()
    if wanted != "auto" or switches.forced is not None:
        tier, why = next(iter(wrong.items()))
        raise TierUnavailableError(tier, why)
    disabled = {**switches.disabled, **{BackendType(tier): why for tier, why in wrong.items()}}
    return await open_best(replace(switches, disabled=disabled), need)


async def _patiently(tier: Tier) -> OpenedTier:
    for wait_s in WAITS_S[:-1]:
        await asyncio.sleep(wait_s)
        try:
            return await open_tier(tier)
        except TierUnavailableError:
            continue
    await asyncio.sleep(WAITS_S[-1])
    return await open_tier(tier)
