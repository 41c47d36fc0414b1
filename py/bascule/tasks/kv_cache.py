"""The KV cache of one conversation: states on the device, and their bookkeeping on the host."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import cos, sin
from typing import Any, TypeAlias

from bascule.backend.base import Backend, shaped
from bascule.errors import ContextLengthError
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import PLACES
from bascule.program.program import Value

# Initial slots of a cache, and those that it grows by.
PAGE = 256
# A sliding context ends here: there are no rotary angles of later positions.
MAX_POSITIONS = 1 << 20
_STEP = 256  # positions between two rows of the angles' second table
N_ANGLES = _STEP + MAX_POSITIONS // _STEP  # rows of both


# Contents of the states that are not all zero, by name.
Initial: TypeAlias = Mapping[str, "array[int] | memoryview[Any]"]


class KvCache:
    """Keys, values and token ids by slot; `ids` are all tokens of the text so far.

    States start as `initial`, or as zeros; `sizes` are those of further Dims. Position p is in slot
    p % `slots`. The cache grows by pages up to `limit` slots; past them the oldest tokens are
    overwritten, if that is allowed. Truncating moves nothing.
    """

    def __init__(
        self,
        backend: Backend,
        values: Sequence[Value],
        initial: Initial,
        *,
        slots: int,
        limit: int,
        sizes: Mapping[str, int],
    ) -> None:
        self.limit = limit
        self.slots = min(whole_pages(slots), limit)
        self.ids: list[int] = []
        self.written = 0  # positions that passes were queued for, those in vain included
        self._others = dict(sizes)
        self.states = backend.states(values, self.sizes)
        for value in values:
            if value.name in initial:
                self.states.write(value.name, 0, initial[value.name])

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the states' Dims."""
        return {"S": self.slots, **self._others}

    async def grow(self, dim: str, rows: int) -> None:
        """Make room for at least that many rows of the states that have this Dim."""
        before = self._others[dim]
        if rows > before:
            self._others[dim] = rows
            try:
                await self.states.resize(self.sizes)
            except BaseException:
                self._others[dim] = before
                raise

    def keep_prefix(self, ids: Sequence[int]) -> int:
        """Truncate to the common prefix with `ids`; return how many of them need not be computed
        again.

        The last one must always be: a pass over it gives the next token.
        """
        same = sum(
            1 for _ in takewhile(bool, (a == b for a, b in zip(self.ids, ids, strict=False)))
        )
        same = min(same, len(ids) - 1)
        # What was overwritten in the ring is lost: only a continuation of the text can use it.
        if self.written > self.slots:
            same = same if same == len(self.ids) else 0
        del self.ids[same:]
        if not same:
            self.written = 0
        return same

    async def reserve(self, length: int, *, slide: bool) -> None:
        """Make room for that many tokens; ContextLengthError if they do not fit."""
        max_length = MAX_POSITIONS if slide else self.limit
        if length > max_length:
            raise ContextLengthError(length, max_length)
        if length > self.slots and self.slots < self.limit:
            before = self.slots
            self.slots = min(self.limit, whole_pages(length))
            try:
                await self.states.resize(self.sizes)
            except BaseException:
                self.slots = before
                raise

    def forget(self) -> None:
        """Drop the text: the next one is computed from its start."""
        self.ids.clear()
        self.written = 0

    def write_tokens(self, start: int, ids: Sequence[int]) -> None:
        """Write ids for programs to read, from position `start` on."""
        for first, slot, count in self._runs(start, len(ids)):
            run = array("I", ids[first : first + count])
            self.states.write("tokens", 4 * slot, run)

    def read_tokens(self, start: int, count: int) -> tuple[memoryview, list[Any]]:
        """Queue reads of the ids of those positions; return the memory (u32) they will fill."""
        result = memoryview(bytearray(4 * count)).cast("I")
        waits = [
            self.states.read("tokens", 4 * slot, result[first : first + n])
            for first, slot, n in self._runs(start, count)
        ]
        return result, waits

    def set_position(self, position: int, count: int) -> None:
        """Set the position and the number of tokens of the next pass."""
        self.note_written(position + count)
        self.states.write("position", 0, array("I", [position]))

    def note_written(self, end: int) -> None:
        """Record that passes are queued for positions before `end`."""
        self.written = max(self.written, end)

    def _runs(self, start: int, count: int) -> list[tuple[int, int, int]]:
        """Divide positions into runs of slots: (index of the first, slot, count)."""
        runs: list[tuple[int, int, int]] = []
        done = 0
        while done < count:
            slot = (start + done) % self.slots
            n = min(count - done, self.slots - slot)
            runs.append((done, slot, n))
            done += n
        return runs


def rotary_states(config: DecoderConfig) -> Initial:
    """Return the initial states of a decoder: its angles, and its positions' numbers."""
    return {"angles": rotary_angles(config), PLACES: array("I", range(config.context))}


def rotary_angles(config: DecoderConfig) -> memoryview[Any]:
    """Return cosines and sines (256 + R, D) f32 from which every position's angles are computed.

    Row p holds those of position p, row 256 + r those of position 256 * r: in float32 the angle of
    a late position would be off by more than its sine tolerates. Without rotary angles all are 0.
    """
    pairs = range(config.size // 2)
    divisors = config.factors or [1.0 for _ in pairs]
    frequencies = [config.theta ** (-2 * p / config.size) / divisors[p] for p in pairs]
    positions = [*range(_STEP), *range(0, MAX_POSITIONS, _STEP)]
    if not config.rotary:
        frequencies = [0.0 for _ in pairs]
    table = array("f")
    for position in positions:
        angles = [position * frequency for frequency in frequencies]
        table.extend(map(cos, angles))
        table.extend(map(sin, angles))
    return shaped(table, "f32", (len(positions), config.size))


def whole_pages(slots: int) -> int:
    """Round slots up to whole pages."""
    return -(-slots // PAGE) * PAGE
