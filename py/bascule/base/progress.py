"""Progress of long work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Of a load, in this order; long work that is no load has a stage of its own.
STAGES = ("config", "tokenizer", "device", "pipelines", "weights", "ready")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of one stage; `total` is 0 while it is not known."""

    stage: str
    done: int
    total: int
    unit: str = "bytes"

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


ProgressCallback = Callable[[Progress], None]
