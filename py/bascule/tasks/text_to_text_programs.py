"""The programs of a text-to-text model, each prepared on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.base.turns import CrossLoopLock
from bascule.models.family import TextToTextFamily
from bascule.models.text_to_text.config import T5Config
from bascule.models.text_to_text.graph import Transforming
from bascule.models.text_to_text.rows import TextRows
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program, Value
from bascule.program.rewrites.registry import LimitFitter
from bascule.tasks.kv_cache import whole_pages
from bascule.tasks.language_graph import Head, record_head
from bascule.tasks.text_to_text_rows import RowPasses, texts_shape

# Tokens of a source's pass; it is recorded for the smallest of these that holds the text.
_LENGTHS = (64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Transformer:
    """A family, the checked config of one of its models, and the longest text that it takes."""

    family: TextToTextFamily
    config: T5Config
    max_length: int

    @property
    def slots(self) -> int:
        """Slots of a full cache, the same for source and target."""
        return whole_pages(self.max_length + 1)

    def lengths(self) -> list[int]:
        """Tokens of the sources' passes."""
        return [n for n in _LENGTHS if n < self.max_length] + [self.max_length]

    def source(self, length: int, *, states: bool) -> Program:
        """Record the pass over a source; with `states` its output is encoder states (1, T, C)."""
        graph = Graph(f"{self.family.name} source")
        result = self.family.encode(self._pass(graph), Dim("T", length))
        if states:
            graph.output(result)
        return freeze(graph)

    def target(self, head: Head) -> Program:
        """Record the pass over one token of the target; see `language_graph.decoder_pass`."""
        graph, slots = Graph(f"{self.family.name} {head}"), Dim("S", self.slots)
        tokens = graph.state("tokens", (slots,), "u32")
        position = graph.state("position", (1,), "u32")
        logits = self.family.decode(self._pass(graph), slots, tokens, position)
        record_head(graph, logits, head, tokens, position)
        return freeze(graph)

    def over_rows(self, rows: TextRows) -> tuple[Program, Program]:
        """Record the passes over several sources, and over one token of each target."""
        source, target = (Graph(f"{self.family.name} {part}") for part in ("sources", "targets"))
        self.family.encode_rows(self._pass(source), rows)
        target.output(self.family.decode_rows(self._pass(target), rows))
        return freeze(source), freeze(target)

    def programs(self) -> list[Program]:
        """Return the programs of a generation; together they have every parameter."""
        heads: tuple[Head, ...] = ("argmax", "sample")
        return [self.source(self.lengths()[0], states=False), *map(self.target, heads)]

    def states(self, fitting: LimitFitter) -> list[Value]:
        """Return all states of any of the programs, as the device can hold them."""
        programs = [self.source(self.lengths()[0], states=False), self.target("sample")]
        return list({v.name: v for p in programs for v in fitting.fit(p).states}.values())

    def _pass(self, graph: Graph) -> Transforming:
        return Transforming(graph, self.config, Dim("X", self.slots))


@dataclass(frozen=True, slots=True)
class _Kind:
    phase: Literal["source", "states", "target"]
    length: int = 1
    head: Head = "none"


class TransformPrograms:
    """Source, target and logits programs over one set of states."""

    longest = 1  # of a chunk: a target's pass takes one token

    def __init__(
        self,
        backend: Backend,
        transformer: Transformer,
        weights: WeightStore,
        states: StateStore,
        fitting: LimitFitter,
    ) -> None:
        self._backend = backend
        self._transformer = transformer
        self._weights = weights
        self._states = states
        self._fitting = fitting
        self._made: dict[_Kind, tuple[Program, Executable]] = {}
        self._rows: RowPasses | None = None
        self._making = CrossLoopLock()

    async def source(self, n_tokens: int, *, states: bool = False) -> Executable:
        """Return the program for a source of that many tokens."""
        length = next(n for n in self._transformer.lengths() if n >= n_tokens)
        return await self._executable(_Kind("states" if states else "source", length))

    async def target(self, head: Head) -> Executable:
        """Return the program that takes one token of the target."""
        return await self._executable(_Kind("target", head=head))

    async def rows(self, sources: Sequence[Sequence[int]]) -> RowPasses:
        """Return the passes over such texts, and their states; the last ones are kept."""
        transformer = self._transformer
        async with self._making.turn():
            shape = texts_shape(sources, transformer.max_length, transformer.slots)
            if self._rows is None or self._rows.shape != shape:
                self._close_rows()
                programs = map(self._fitting.fit, transformer.over_rows(shape))
                heads = transformer.config.heads
                passes = RowPasses(self._backend, self._weights, shape, *programs, heads=heads)
                try:
                    await passes.prepare()
                except BaseException:  # a cancelled call among them: the next one begins anew
                    passes.close()
                    raise
                self._rows = passes
            return self._rows

    @property
    def planned_nbytes(self) -> int:
        """Bytes of intermediate values, and of the states of several texts."""
        planned = sum(program.planned_nbytes for program, _ in self._made.values())
        return planned + (self._rows.nbytes if self._rows is not None else 0)

    def essential(self) -> list[Program]:
        """See `generating.Programs`."""
        return self._fitting.fit_possible(self._transformer.programs())

    def take_less(self) -> bool:
        """See `generating.Programs`: there is nothing smaller."""
        return False

    def close(self) -> None:
        """Free what was prepared; the states stay."""
        while self._made:
            self._made.popitem()[1][1].close()
        self._close_rows()

    def _close_rows(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    async def _executable(self, kind: _Kind) -> Executable:
        async with self._making.turn():
            if kind not in self._made:
                program = self._fitting.fit(self._plain(kind))
                executable = await self._backend.prepare(program, self._weights, self._states)
                self._made[kind] = program, executable
            return self._made[kind][1]

    def _plain(self, kind: _Kind) -> Program:
        if kind.phase == "target":
            return self._transformer.target(kind.head)
        return self._transformer.source(kind.length, states=kind.phase == "states")
