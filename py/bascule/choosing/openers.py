"""Open one tier by name: a device, and a dispatch that proves that it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from bascule.backend.base import Backend
from bascule.backend.probe import probe_dispatch
from bascule.backend.tiers import NAMES, tier_info
from bascule.base.arguments import did_you_mean
from bascule.errors import InputError

if TYPE_CHECKING:
    from bascule.choosing.decisions import Decision
    from bascule.choosing.speed_records import SpeedWatch


@dataclass(frozen=True, slots=True)
class OpenedTier:
    """A working tier and the reason for it; `decision` has the details if it was chosen.

    `watch` compares a model's runs with the predictions.
    """

    backend: Backend
    reason: str
    decision: Decision | None = None
    watch: SpeedWatch | None = None


@runtime_checkable
class OpenDevice(Protocol):
    """Something open that has a backend: a `bascule.Device`."""

    @property
    def backend(self) -> Backend:
        """The backend that runs programs."""
        ...


async def open_named(tier: str, *, remember: bool = True) -> Backend:
    """Open that tier, and prove with a dispatch that it computes.

    InputError for an unknown name, TierUnavailableError for a tier that does not work here.
    """
    if tier not in NAMES:
        hint = did_you_mean(tier, ("auto", *NAMES))
        raise InputError("tier", f'"auto" or one of {", ".join(NAMES)}', repr(tier), hint=hint)
    backend: Backend = await tier_info(tier).open(remember=remember)
    try:
        await probe_dispatch(backend)
    except BaseException:
        backend.close()
        raise
    return backend
