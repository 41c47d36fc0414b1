"""Tiers that stay open while models come and go: browsers free a device late, if at all.

A `Device` would import arrays and kernels, which a page that only runs models does not need.
"""

from __future__ import annotations

from os import PathLike
from typing import Unpack

from bascule.backend.base import Backend
from bascule.choosing.auto import ModelNeed, open_chosen, open_tier
from bascule.choosing.decisions import Decision
from bascule.choosing.openers import OpenedTier
from bascule.choosing.survey import Survey, survey
from bascule.choosing.switches import read_switches
from bascule.device.loading import load_model
from bascule.device.options import DeviceLoadOptions, LoadSettings
from bascule.tasks.models import AnyModel


class OpenTiers:
    """At most one of each tier opened by name, and those among which "auto" chooses.

    `decision` is the one of "auto" for the last model; None if its tier was named.
    """

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self._named: dict[str, Backend] = {}
        self._surveyed: Survey | None = None

    @property
    def backends(self) -> list[Backend]:
        """The open backends."""
        surveyed = self._surveyed.backends.values() if self._surveyed else ()
        return [*self._named.values(), *surveyed]

    async def load(
        self, model: str | PathLike[str], tier: str, **options: Unpack[DeviceLoadOptions]
    ) -> AnyModel:
        """Load a model onto `tier`, opened if necessary; errors as `load`."""

        async def opener(need: ModelNeed) -> OpenedTier:
            opened = await self._open(tier, need)
            self.decision = opened.decision
            return opened

        return await load_model(model, tier, opener, LoadSettings(**options), owns=False)

    async def _open(self, wanted: str, need: ModelNeed) -> OpenedTier:
        reason = f"{wanted} was asked for"
        if wanted == "auto":
            switches = read_switches()
            if switches.forced is None:
                return await self._best(need)
            wanted, reason = switches.forced.tier, switches.forced_reason
        backend = next((b for b in self.backends if b.tier == wanted and not b.lost), None)
        if backend is None:
            backend = self._named[wanted] = (await open_tier(wanted, need)).backend
        return OpenedTier(backend, reason)

    async def _best(self, need: ModelNeed) -> OpenedTier:
        if self._surveyed is None or any(b.lost for b in self._surveyed.backends.values()):
            if self._surveyed is not None:
                self._surveyed.close()
            self._surveyed = await survey(read_switches(), hold=True)
        opened, self._surveyed = await open_chosen(self._surveyed, need)
        return opened
