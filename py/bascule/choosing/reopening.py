"""After a device was lost: another one, patiently, and at last another tier. After one was wrong:
another tier at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bascule.backend.base import Tier
from bascule.choosing.auto import ModelNeed, open_best, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.choosing.switches import read_switches
from bascule.choosing.workload import BackendType
from bascule.errors import TierUnavailableError

# A browser whose GPU process died needs a moment until it shows an adapter again.
WAITS_S = (0.0, 0.25, 1.0, 4.0)


async def reopen_tier(
    wanted: str | Sequence[str], lost: Tier, why: str, need: ModelNeed
) -> OpenedTier:
    """Open the tier `lost` again, patiently; then, where `wanted` is "auto" or several, what that
    gives now. Raises TierUnavailableError where none is to be had.
    """
    try:
        found = await _patiently(lost)
    except TierUnavailableError:
        if isinstance(wanted, str) and wanted != "auto":
            raise
        other = await open_tier(wanted, need)
        return OpenedTier(other.backend, f"{other.reason}; the device of {lost} was lost ({why})")
    return OpenedTier(found.backend, f"opened again after its device was lost ({why})")


async def open_another(
    wanted: str | Sequence[str], wrong: Mapping[Tier, str], need: ModelNeed
) -> OpenedTier:
    """Where `wanted` is "auto" the tier that should run what is needed fastest, or the first of
    several, but for those that are `wrong`, each with its reason. TierUnavailableError where none
    is left or one was asked for.
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
