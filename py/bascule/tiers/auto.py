"""The tier that a program runs on: the one asked for, or for "auto" the best that works."""

from __future__ import annotations

from bascule.errors import BasculeError, TierUnavailableError
from bascule.tiers.openers import IN_PAGE, OPENERS, OpenedTier, open_named


async def open_tier(wanted: str, *, remember: bool = True) -> OpenedTier:
    """Open `wanted`, or for "auto" the best tier that works.

    `remember` keeps what is learned of the device (kernels that are fast, or fail) between runs.
    InputError for an unknown name, TierUnavailableError for a known one that does not work here.
    """
    if wanted == "auto":
        return await _open_best(remember)
    return OpenedTier(await open_named(wanted, remember=remember), f"{wanted} was asked for")


async def _open_best(remember: bool) -> OpenedTier:
    refused: list[str] = []
    for tier in OPENERS:
        if tier == "wasm" and not IN_PAGE:
            continue  # outside a page numpy's BLAS is faster
        try:
            backend = await open_named(tier, remember=remember)
        except BasculeError as error:
            refused.append(f"{tier}: {getattr(error, 'reason', error)}")
            continue
        why = "it runs anywhere" if tier == "cpu" else "a test dispatch gave the right numbers"
        before = f"; before it, {'; '.join(refused)}" if refused else ""
        return OpenedTier(backend, f"auto took {tier}: {why}{before}")
    raise TierUnavailableError("auto", "; ".join(refused))
