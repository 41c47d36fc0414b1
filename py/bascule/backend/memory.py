"""How many bytes a device holds, and what for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from bascule.errors import HostMemoryError

# weights: a model's parameters; states: what outlives a run, a KV cache; buffers: a user's own;
# programs: inputs, intermediate values and parameters of what is prepared; staging: what is read;
# profile: timestamps.
MemoryKind = Literal["weights", "states", "buffers", "programs", "staging", "profile"]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes of a device: now, the most so far, and what is held now by kind.

    The kinds are "weights", "states" (KV caches), "buffers" (`DeviceBuffer`s), "programs" (inputs,
    intermediate values and parameters of compiled programs), "staging" (buffers for reading) and
    "profile" (timestamps); one that holds nothing is left out. `marked_peak_nbytes` is the most
    since what measures a single piece of work has last marked it, else 0.
    """

    now_nbytes: int
    peak_nbytes: int
    by_kind: Mapping[str, int]
    marked_peak_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class PassBytes:
    """Bytes on a device of a program: `held` while it is prepared, `read` for its outputs' staging
    buffers during a run, `trials` before it is prepared where its kernels are to be proven.
    """

    held: int = 0
    read: int = 0
    trials: int = 0


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Limits what a device holds to `nbytes`; `make_room` frees something, or returns False."""

    nbytes: int
    make_room: Callable[[], bool] = lambda: False

    def admits(
        self, nbytes: int, held: Callable[[], int], trim: Callable[[], object] | None = None
    ) -> bool:
        """Whether so many more bytes fit beside those `held`, once `trim` and then `make_room` have
        freed what they can.
        """
        if trim is not None and held() + nbytes > self.nbytes:
            trim()
        while held() + nbytes > self.nbytes:
            if not self.make_room():
                return False
        return True

    def used(self, held: int) -> str:
        """What there is no room in, for people."""
        return f"{held:,} bytes of {self.nbytes:,} are in use"


class MemoryCount:
    """Counts what is allocated and freed."""

    def __init__(self) -> None:
        self.now_nbytes = 0
        self.budget: MemoryBudget | None = None
        self._peak_nbytes = 0
        self._marked_peak_nbytes = 0
        self._kinds: Counter[str] = Counter()
        self._samples: list[tuple[float, int]] | None = None

    def excess(self, nbytes: int, trim: Callable[[], object] | None = None) -> str:
        """Why so many more bytes do not fit the budget; empty where they do.

        `trim` and the budget's `make_room` have freed what they can then.
        """
        budget = self.budget
        if budget is None or budget.admits(nbytes, lambda: self.now_nbytes, trim):
            return ""
        return budget.used(self.now_nbytes)

    def claim(self, asked: str, nbytes: int) -> None:
        """Raise HostMemoryError where so many more bytes do not fit the budget."""
        if why := self.excess(nbytes):
            raise HostMemoryError(f"{asked} within the memory budget ({why})", nbytes)

    def add(self, kind: MemoryKind, nbytes: int) -> None:
        """Count bytes that were allocated, or freed where `nbytes` is negative."""
        self._kinds[kind] += nbytes
        self.now_nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self.now_nbytes)
        self._marked_peak_nbytes = max(self._marked_peak_nbytes, self.now_nbytes)
        if self._samples is not None:
            self._samples.append((perf_counter(), self.now_nbytes))

    def start_samples(self) -> None:
        """From now on keep each change, with its moment on `perf_counter`."""
        self._samples = [(perf_counter(), self.now_nbytes)]

    def stop_samples(self) -> list[tuple[float, int]]:
        """The changes since `start_samples`, and the bytes now."""
        samples, self._samples = self._samples or [], None
        return [*samples, (perf_counter(), self.now_nbytes)]

    def mark(self) -> None:
        """Count a second peak from now on."""
        self._marked_peak_nbytes = self.now_nbytes

    def clear(self) -> None:
        """Count everything as freed."""
        self._kinds.clear()
        self.now_nbytes = 0

    @property
    def use(self) -> MemoryUse:
        """The counts as they are now."""
        kinds = {kind: nbytes for kind, nbytes in sorted(self._kinds.items()) if nbytes}
        return MemoryUse(self.now_nbytes, self._peak_nbytes, kinds, self._marked_peak_nbytes)
