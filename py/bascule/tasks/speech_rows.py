"""A decoder that reads several tokens per pass, each after tokens of its own choice."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.base.arrays import Array, np
from bascule.errors import NotFiniteError
from bascule.models.decoder.graph import CacheDType
from bascule.models.speech.config import Rows
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program
from bascule.program.rewrites.registry import LimitFitter
from bascule.tasks.speech_graph import SpeechSpec

# Initial slots of the states; they double. A search has at most this many beams.
MAX_BEAMS = 16
FIRST_SLOTS = 64
# Added to the score of what a row does not see: its exp is 0 in float32.
_HIDDEN = -1e30


@dataclass(frozen=True, slots=True)
class Row:
    """A token at a position of its text, and the slots of the tokens before it."""

    token: int
    place: int
    before: Sequence[int]


def rows_program(
    speech: SpeechSpec, cache: CacheDType, count: int, queries: tuple[int, ...]
) -> Program:
    """Return the pass over `count` rows; outputs as `SpeechFamily.decode_rows`."""
    graph = Graph(f"rows {count}")
    # Rows that a search with the widest beam leaves behind.
    slots = Dim("S", MAX_BEAMS * speech.config.decoder.places)
    for value in speech.family.decode_rows(
        graph, speech.config, cache, Rows(count, slots, queries)
    ):
        graph.output(value)
    return freeze(graph)


class RowPrograms:
    """Passes of several rows over one model's states, each prepared on first use."""

    def __init__(
        self,
        backend: Backend,
        weights: WeightStore,
        states: StateStore,
        fitting: LimitFitter,
        speech: SpeechSpec,
        cache: CacheDType,
    ) -> None:
        self.slots = FIRST_SLOTS
        self.states = states
        self.speech = speech
        self.cache: CacheDType = cache
        self._backend = backend
        self._weights = weights
        self._fitting = fitting
        self._prepared: dict[tuple[int, tuple[int, ...]], tuple[Program, Executable]] = {}

    async def executable(self, count: int, queries: tuple[int, ...]) -> Executable:
        """Return the pass of that many rows."""
        if (count, queries) not in self._prepared:
            program = self._fitting.fit(rows_program(self.speech, self.cache, count, queries))
            executable = await self._backend.prepare(program, self._weights, self.states)
            self._prepared[count, queries] = program, executable
        return self._prepared[count, queries][1]

    async def reserve(self, slots: int) -> None:
        """Make room for that many slots."""
        wider = self.slots
        while wider < slots:
            wider *= 2
        if wider > self.slots:
            await self.states.resize({"S": wider})
            self.slots = wider

    @property
    def planned_nbytes(self) -> int:
        """Bytes of intermediate values of prepared programs."""
        return sum(program.planned_nbytes for program, _ in self._prepared.values())

    def close(self) -> None:
        """Free what was prepared; the states stay."""
        while self._prepared:
            self._prepared.popitem()[1][1].close()


class RowDecoder:
    """Runs passes of up to `count` rows over one window; `slot` is where the next pass writes."""

    def __init__(
        self,
        programs: RowPrograms,
        count: int,
        queries: tuple[int, ...],
        not_finite: Callable[[str], NotFiniteError],
    ) -> None:
        self.count = count
        self.slot = 0
        self.passes = 0
        self.programs = programs
        self._queries = queries
        self._not_finite = not_finite

    async def run(self, rows: Sequence[Row]) -> tuple[list[int], list[Array]]:
        """Return the slots of at most `count` rows, and the outputs, cut to those rows.

        A row sees the slots before it and its own. NotFiniteError for logits that are not finite.
        """
        first, count, programs = self.slot, self.count, self.programs
        executable = await programs.executable(count, self._queries)
        await programs.reserve(first + count)
        self.slot = first + count
        bias = np.full((count, programs.slots), _HIDDEN, np.float32)
        for at in range(count):
            bias[at, first + at] = 0
        for at, row in enumerate(rows):
            bias[at, list(row.before)] = 0
        heads = programs.speech.config.decoder.heads
        spare = [0] * (count - len(rows))
        inputs = {
            "ids": np.array([[row.token for row in rows] + spare], np.uint32),
            "positions": np.array([[row.place for row in rows] + spare], np.uint32),
            "bias": np.ascontiguousarray(np.broadcast_to(bias, (heads, *bias.shape))),
        }
        for part, name in enumerate("qkv"):
            inputs[f"{name}_at"] = np.arange(part, 3 * count, 3, dtype=np.uint32)[None]
        programs.states.write("row_slot", 0, array("I", [first]))
        result = await executable.run({"S": programs.slots}, inputs)
        outputs = [each[: len(rows)] for each in result.values()]
        if not np.isfinite(outputs[0]).all():
            raise self._not_finite(f"a logit after token {rows[0].place}")
        self.passes += 1
        return list(range(first, first + len(rows))), outputs
