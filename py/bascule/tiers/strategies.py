"""The rewrites that there are, by the names of their strategies, in the order they are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from bascule.program.rewrites.rewrite import Rewrite, StrategyName

REWRITES: Mapping[StrategyName, Rewrite] = MappingProxyType({})


def rewrites_of(names: Collection[StrategyName], *, layer_processing: bool) -> list[Rewrite]:
    """Those of `names` that are rewrites; layer by layer only where that is switched on."""
    left_out = () if layer_processing else ("layer_decomposition",)
    return [rewrite for name, rewrite in REWRITES.items() if name in names and name not in left_out]
