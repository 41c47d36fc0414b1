"""The rewrites of an operation's program, by the names of their strategies.

The other strategies divide an operation: see `dividing`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from bascule.program.rewrites.quantization import progressive_quantization
from bascule.program.rewrites.rewrite import Rewrite, StrategyName

REWRITES: Mapping[StrategyName, Rewrite] = MappingProxyType(
    {"progressive_quantization": progressive_quantization}
)


def rewrites_of(names: Collection[StrategyName]) -> list[Rewrite]:
    """The rewrites among these strategies."""
    return [rewrite for name, rewrite in REWRITES.items() if name in names]
