"""Progress of long-running work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# The stages of a load, in this order; other work has stages of its own.
STAGES = ("config", "tokenizer", "device", "pipelines", "weights", "ready")


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of one stage; `total` is 0 while it is unknown."""

    stage: str
    done: int
    total: int
    unit: str = "bytes"

    @property
    def fraction(self) -> float:
        """Return a number from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0


ProgressCallback = Callable[[Progress], None]
