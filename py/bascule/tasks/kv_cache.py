"""The KV cache of one conversation: states on the device, and what the host knows of them."""

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

# Slots that a cache grows by, and first has.
PAGE = 256
# A sliding context ends here: the rotary angles of later positions are not kept.
MOST_POSITIONS = 1 << 20
_STEP = 256  # positions between two rows of the angles' second table
N_ANGLES = _STEP + MOST_POSITIONS // _STEP  # rows of both


# Numbers of the states that are not all zero, by name.
Initial: TypeAlias = Mapping[str, "array[int] | memoryview[Any]"]


class KvCache:
    """Keys, values and token ids by slot; `ids` are all tokens of the text so far.

    States hold what is `initial`, zeros without it; `sizes` are those of further Dims.
    Position p stands in slot p % `slots`. The cache grows by pages up to `limit` slots; past them
    the oldest tokens give way, where that is wanted. Truncating moves nothing.
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
        """The states as programs name them."""
        return {"S": self.slots, **self._others}

    async def grow(self, dim: str, rows: int) -> None:
        """Make room for at least so many rows of the states that have this Dim."""
        before = self._others[dim]
        if rows > before:
            self._others[dim] = rows
            try:
                await self.states.resize(self.sizes)
            except BaseException:
                self._others[dim] = before
                raise

    def keep_prefix(self, ids: Sequence[int]) -> int:
        """Truncate to what `ids` begin with; gives how many of them need not be computed again.

        At least the last one always must: a pass over it gives the next token.
        """
        same = sum(
            1 for _ in takewhile(bool, (a == b for a, b in zip(self.ids, ids, strict=False)))
        )
        same = min(same, len(ids) - 1)
        # What was overwritten in the ring cannot come back: only a continuation can go on then.
        if self.written > self.slots:
            same = same if same == len(self.ids) else 0
        del self.ids[same:]
        if not same:
            self.written = 0
        return same

    async def reserve(self, length: int, *, slide: bool) -> None:
        """Make room for so many tokens; ContextLengthError if they do not fit."""
        most = MOST_POSITIONS if slide else self.limit
        if length > most:
            raise ContextLengthError(length, most)
        if length > self.slots and self.slots < self.limit:
            before = self.slots
            self.slots = min(self.limit, whole_pages(length))
            try:
                await self.states.resize(self.sizes)
            except BaseException:
                self.slots = before
                raise

    def forget(self) -> None:
        """Drop the text: what comes next is computed from its beginning."""
        self.ids.clear()
        self.written = 0

    def write_tokens(self, start: int, ids: Sequence[int]) -> None:
        """Put ids where programs read those of positions from `start` on."""
        for first, slot, count in self._runs(start, len(ids)):
            run = array("I", ids[first : first + count])
            self.states.write("tokens", 4 * slot, run)

    def read_tokens(self, start: int, count: int) -> tuple[memoryview, list[Any]]:
        """Queue reads of the ids of those positions: the memory (u32) that awaiting them fills."""
        result = memoryview(bytearray(4 * count)).cast("I")
        waits = [
            self.states.read("tokens", 4 * slot, result[first : first + n])
            for first, slot, n in self._runs(start, count)
        ]
        return result, waits

    def set_position(self, position: int, count: int) -> None:
        """Where the next pass begins, and of how many tokens it is."""
        self.note_written(position + count)
        self.states.write("position", 0, array("I", [position]))

    def note_written(self, end: int) -> None:
        """Passes are queued for positions before `end`."""
        self.written = max(self.written, end)

    def _runs(self, start: int, count: int) -> list[tuple[int, int, int]]:
        """Positions as runs of slots: (index of the first, slot, how many)."""
        runs: list[tuple[int, int, int]] = []
        done = 0
        while done < count:
            slot = (start + done) % self.slots
            n = min(count - done, self.slots - slot)
            runs.append((done, slot, n))
            done += n
        return runs


def rotary_states(config: DecoderConfig) -> Initial:
    """Return what the states of a decoder hold at first: its angles, and its positions' numbers."""
    return {"angles": rotary_angles(config), PLACES: array("I", range(config.context))}


def rotary_angles(config: DecoderConfig) -> memoryview[Any]:
    """Cosines and sines (256 + R, D) f32 from which every position's angles are made.

    Row p holds those of position p, row 256 + r those of position 256 * r: in float32 the angle of
    a late position would be off by more than its sine may. Without rotary angles all are 0.
    """
    pairs = range(config.size // 2)
    divisors = config.factors or [1.0 for _ in pairs]
    frequencies = [config.theta ** (-2 * p / config.size) / divisors[p] for p in pairs]
    positions = [*range(_STEP), *range(0, MOST_POSITIONS, _STEP)]
    if not config.rotary:
        frequencies = [0.0 for _ in pairs]
    table = array("f")
    for position in positions:
        angles = [position * frequency for frequency in frequencies]
        table.extend(map(cos, angles))
        table.extend(map(sin, angles))
    return shaped(table, "f32", (len(positions), config.size))


def whole_pages(slots: int) -> int:
    """Return the slots of as many pages as hold these."""
    return -(-slots // PAGE) * PAGE
