"""How many bytes a device holds, and what for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

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


class MemoryCount:
    """Counts what is allocated and freed."""

    def __init__(self) -> None:
        self.now_nbytes = 0
        self._peak_nbytes = 0
        self._marked_peak_nbytes = 0
        self._kinds: Counter[str] = Counter()
        self._samples: list[tuple[float, int]] | None = None
        self.limit_nbytes: int | None = None

    def add(self, kind: MemoryKind, nbytes: int) -> None:
        """Count bytes that were allocated, or freed where `nbytes` is negative."""
        self._kinds[kind] += nbytes
        self.now_nbytes += nbytes
        self._peak_nbytes = max(self._peak_nbytes, self.now_nbytes)
        self._marked_peak_nbytes = max(self._marked_peak_nbytes, self.now_nbytes)
        if self._samples is not None:
            self._samples.append((perf_counter(), self.now_nbytes))

    def has_room(self, nbytes: int) -> bool:
        """Whether so many more bytes stay within the limit, if there is one."""
        return self.limit_nbytes is None or self.now_nbytes + nbytes <= self.limit_nbytes

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
