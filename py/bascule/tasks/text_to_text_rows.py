"""Passes over several texts at once, and the choice of each one's next token."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from bascule.backend.base import Backend, Executable, WeightStore
from bascule.base.arrays import Array, np
from bascule.models.text_to_text.rows import (
    ROW_FIRST,
    ROW_HEADS,
    ROW_LENGTHS,
    ROW_SLOT,
    TextRows,
)
from bascule.program.ops.sampling import argmax_token, penalise, sample_token
from bascule.program.program import Dim, Program
from bascule.tasks.options import GenerationRequest

# The most texts of a pass.
MAX_ROWS = 8
_FIRST_SLOTS = 64
# Sources are padded to a multiple of this many tokens.
_TOKENS = 32


def texts_shape(sources: Sequence[Sequence[int]], max_length: int, slots: int) -> TextRows:
    """Return the shape of the passes for these sources: a power of two of them."""
    count = 1 << (len(sources) - 1).bit_length()
    longest = max(map(len, sources))
    tokens = min(-(-longest // _TOKENS) * _TOKENS, max_length)
    return TextRows(count, tokens, Dim("S", slots))


class RowPasses:
    """The passes over the sources and the targets of one shape, and their states."""

    def __init__(
        self,
        backend: Backend,
        weights: WeightStore,
        shape: TextRows,
        source: Program,
        target: Program,
        *,
        heads: int,
    ) -> None:
        self.shape = shape
        self._backend, self._weights = backend, weights
        self._programs = source, target
        self._made: list[Executable] = []
        self._slots = min(_FIRST_SLOTS, shape.slots.limit)
        values = {v.name: v for program in self._programs for v in program.states}
        self._states = backend.states(list(values.values()), {"S": self._slots})
        self._states.write(ROW_FIRST, 0, array("I", [0]))
        self._states.write(ROW_HEADS, 0, array("I", [*range(heads)] * shape.count))

    async def prepare(self) -> None:
        """Prepare both passes."""
        for program in self._programs:
            self._made.append(await self._backend.prepare(program, self._weights, self._states))

    async def read_sources(self, sources: Sequence[Sequence[int]]) -> None:
        """Fill the cross-attention's keys and values; missing texts have one token."""
        count, tokens = self.shape.count, self.shape.tokens
        ids = np.zeros((count, tokens), np.uint32)
        for at, source in enumerate(sources):
            ids[at, : len(source)] = source
        spare = [1] * (count - len(sources))
        self._states.write(ROW_LENGTHS, 0, array("I", [*map(len, sources), *spare]))
        inputs: dict[str, Array] = {"ids": ids}
        for at, part in enumerate("kv"):
            inputs[f"{part}_at"] = np.arange(at, 2 * ids.size, 2, dtype=np.uint32)[None]
        await self._made[0].submit({"S": self._slots}, inputs)

    async def step(self, at: int, tokens: Sequence[int]) -> Array:
        """Read a token of each target at position `at`; return the logits (R, V) after them."""
        if at >= self._slots:
            slots = min(2 * self._slots, self.shape.slots.limit)
            await self._states.resize({"S": slots})
            self._slots = slots
        self._states.write(ROW_SLOT, 0, array("I", [at]))
        ids = np.array([[*tokens, *[0] * (self.shape.count - len(tokens))]], np.uint32)
        (logits,) = (await self._made[1].run({"S": self._slots}, {"ids": ids})).values()
        return logits[: len(tokens)]

    @property
    def nbytes(self) -> int:
        """Bytes of intermediate values and states."""
        return self._states.nbytes + sum(program.planned_nbytes for program in self._programs)

    def close(self) -> None:
        """Free all of it."""
        while self._made:
            self._made.pop().close()
        self._states.close()


def next_token(logits: Array, ids: Sequence[int], request: GenerationRequest) -> int:
    """Return the token that follows `ids` by logits (V), or NOT_A_TOKEN: as the ops choose it."""
    row, tokens = logits[None], np.array([*ids, 0], np.uint32)
    position = np.array([len(ids) - 1], np.uint32)
    settings, head = np.frombuffer(request.settings, np.uint32), request.sampling.head
    if head == "argmax":
        return int(argmax_token(row, tokens, position)[0])
    if head == "penalised":
        row = penalise(row, tokens, position, settings)
    return int(sample_token(row, tokens, position, settings)[0])
