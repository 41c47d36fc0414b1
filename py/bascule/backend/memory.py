"""How many bytes a device holds, by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from bascule.errors import HostMemoryError

# weights: a model's parameters; states: what outlives a run, such as a KV cache; buffers: a user's
# own; programs: inputs, intermediate values and parameters of compiled programs; staging: buffers
# for reading; profile: timestamps.
MemoryKind = Literal["weights", "states", "buffers", "programs", "staging", "profile"]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a device: now, at the peak, and now by kind.

    The kinds are "weights", "states" (KV caches), "buffers" (`DeviceBuffer`s), "programs" (inputs,
    intermediate values and parameters of compiled programs), "staging" (buffers for reading) and
    "profile" (timestamps); empty ones are left out. `marked_peak_nbytes` is the peak since the last
    `mark`, else 0.
    """

    now_nbytes: int
    peak_nbytes: int
    by_kind: Mapping[str, int]
    marked_peak_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class PassBytes:
    """Device bytes of a program: `held` while it is prepared, `read` for staging its outputs during
    a run, `trials` for proving its kernels before.
    """

    held: int = 0
    read: int = 0
    trials: int = 0


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Limits a device to `nbytes`; `make_room` frees something, or returns False."""

    nbytes: int
    make_room: Callable[[], bool] = lambda: False

    def admits(
        self, nbytes: int, held: Callable[[], int], trim: Callable[[], object] | None = None
    ) -> bool:
        """Whether that many more bytes fit beside those `held`, after freeing what can be."""
        if trim is not None and held() + nbytes > self.nbytes:
            trim()
        while held() + nbytes > self.nbytes:
            if not self.make_room():
                return False
        return True

    def used(self, held: int) -> str:
        """Describe the full budget for an error message."""
        return f"{held:,} bytes of {self.nbytes:,} are in use"


class MemoryCount:
    """Counts allocations and frees."""

    def __init__(self) -> None:
        self.now_nbytes = 0
        self.budget: MemoryBudget | None = None
        self._peak_nbytes = 0
        self._marked_peak_nbytes = 0
        self._kinds: Counter[str] = Counter()
        self._samples: list[tuple[float, int]] | None = None

    def excess(self, nbytes: int, trim: Callable[[], object] | None = None) -> str:
        """Return why that many more bytes do not fit the budget; empty if they do.

        Tried after `trim` and the budget's `make_room` have freed what they can.
        """
        budget = self.budget
        if budget is None or budget.admits(nbytes, lambda: self.now_nbytes, trim):
            return ""
        return budget.used(self.now_nbytes)

    def claim(self, asked: str, nbytes: int) -> None:
        """Raise HostMemoryError if that many more bytes do not fit the budget."""
        if why := self.excess(nbytes):
            raise HostMemoryError(f"{asked} within the memory budget ({why})", nbytes)

    def add(self, kind: MemoryKind, nbytes: int) -> None:
        """Count allocated bytes, or freed ones if `nbytes` is negative."""
        self._kinds[kind] += nbytes
        self.now_nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self.now_nbytes)
        self._marked_peak_nbytes = max(self._marked_peak_nbytes, self.now_nbytes)
        if self._samples is not None:
            self._samples.append((perf_counter(), self.now_nbytes))

    def start_samples(self) -> None:
        """Start recording each change with its time on `perf_counter`."""
        self._samples = [(perf_counter(), self.now_nbytes)]

    def stop_samples(self) -> list[tuple[float, int]]:
        """Return the changes since `start_samples`, and the current bytes."""
        samples, self._samples = self._samples or [], None
        return [*samples, (perf_counter(), self.now_nbytes)]

    def mark(self) -> None:
        """Start counting a second peak."""
        self._marked_peak_nbytes = self.now_nbytes

    def clear(self) -> None:
        """Count everything as freed."""
        self._kinds.clear()
        self.now_nbytes = 0

    @property
    def use(self) -> MemoryUse:
        """Return the current counts."""
        kinds = {kind: nbytes for kind, nbytes in sorted(self._kinds.items()) if nbytes}
        return MemoryUse(self.now_nbytes, self._peak_nbytes, kinds, self._marked_peak_nbytes)
