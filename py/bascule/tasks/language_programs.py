"""The programs of a language model, each prepared on first use."""

from __future__ import annotations

from dataclasses import dataclass, field

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.base.turns import CrossLoopLock
from bascule.errors import LimitError
from bascule.models.decoder.graph import CacheDType
from bascule.program.compile import freeze
from bascule.program.program import Dim, Program, Value
from bascule.program.rewrites.registry import LimitFitter
from bascule.tasks.language_graph import Decoder, Head, decoder_pass

# Tokens of a prefill pass: limits how long a dispatch runs, and so how long a page is blocked.
PREFILL_LENGTHS = (16, 64)


@dataclass(frozen=True, slots=True)
class _Kind:
    head: Head
    length: int
    window: bool


def essential_programs(decoder: Decoder, max_length: int, cache: CacheDType) -> list[Program]:
    """Return the programs that a generation consists of."""
    kinds = [_Kind("argmax", 1, False), _Kind("sample", 1, False)]
    kinds += [_Kind("none", n, False) for n in PREFILL_LENGTHS]
    return [_program(decoder, max_length, cache, kind) for kind in kinds]


def all_states(
    decoder: Decoder, max_length: int, cache: CacheDType, fitting: LimitFitter
) -> tuple[Value, ...]:
    """Return all states of any of the programs, as the device can hold them."""
    return fitting.fit(_program(decoder, max_length, cache, _Kind("sample", 1, False))).states


def max_slots(max_length: int) -> int:
    """Return the slots of a full cache: a prefill chunk fits beside the window."""
    return max_length + PREFILL_LENGTHS[-1]


@dataclass(eq=False)
class LanguagePrograms:
    """Prefill, decode and logits programs over one set of states; chunks are at most `longest`."""

    _backend: Backend
    _decoder: Decoder
    _weights: WeightStore
    _states: StateStore
    _max_length: int
    _cache: CacheDType
    _fitting: LimitFitter
    longest: int = PREFILL_LENGTHS[-1]
    _prepared: dict[_Kind, Executable] = field(default_factory=dict[_Kind, Executable])
    _unfit: dict[_Kind, LimitError] = field(default_factory=dict[_Kind, LimitError])
    _making: CrossLoopLock = field(default_factory=CrossLoopLock)

    def essential(self) -> list[Program]:
        """See `essential_programs`; those that the device can hold."""
        programs = essential_programs(self._decoder, self._max_length, self._cache)
        return self._fitting.fit_possible(programs)

    def of_sample(self, length: int) -> list[Program]:
        """Return the programs for the logits of that many tokens, and for the next token."""
        logits = self._fitting.fit_possible(map(self._plain, _kinds("logits", length, False)))
        return [*logits[:1], self._program(_Kind("argmax", 1, False))]

    async def prefill(self, n_remaining: int, *, window: bool) -> tuple[int, Executable]:
        """Return the program for the next chunk of `n_remaining` tokens, and the chunk's size."""
        return await self._chunk("none", n_remaining, window)

    async def logits(self, n_remaining: int) -> tuple[int, Executable]:
        """The same with all logits as its output."""
        return await self._chunk("logits", n_remaining, False)

    async def decode(self, head: Head, *, window: bool) -> Executable:
        """Return the program that takes one token and gives the next."""
        return await self._executable(_Kind(head, 1, window))

    @property
    def planned_nbytes(self) -> int:
        """Bytes of intermediate values of prepared programs."""
        return sum(self._program(kind).planned_nbytes for kind in self._prepared)

    def take_less(self) -> bool:
        """Use smaller chunks from now on; False if they are the smallest."""
        fewer = [n for n in PREFILL_LENGTHS if n < self.longest]
        self.longest = max(fewer, default=self.longest)
        return bool(fewer)

    def close(self, head: Head | None = None) -> None:
        """Free the prepared programs, or only those with that head; the states stay."""
        for kind in [k for k in self._prepared if head in (None, k.head)]:
            self._prepared.pop(kind).close()

    async def _executable(self, kind: _Kind) -> Executable:
        async with self._making.turn():
            result = self._prepared.get(kind)
            if result is None:
                program = self._program(kind)
                result = await self._backend.prepare(program, self._weights, self._states)
                self._prepared[kind] = result
            return result

    async def _chunk(self, head: Head, n_remaining: int, window: bool) -> tuple[int, Executable]:
        """Return the best length for `n_remaining` tokens that the device can hold."""
        for kind in _kinds(head, min(n_remaining, self.longest), window):
            try:
                return kind.length, await self._executable(kind)
            except LimitError as error:
                self._unfit[kind] = error
        raise self._unfit[_Kind(head, 1, window)]

    def _program(self, kind: _Kind) -> Program:
        if kind in self._unfit:
            raise self._unfit[kind]
        return self._fitting.fit(self._plain(kind))

    def _plain(self, kind: _Kind) -> Program:
        return _program(self._decoder, self._max_length, self._cache, kind)


def _kinds(head: Head, n_remaining: int, window: bool) -> list[_Kind]:
    """Return passes over some of `n_remaining` tokens, the best first."""
    shorter = [n for n in PREFILL_LENGTHS[:-1] if n < n_remaining]
    wanted = next((n for n in PREFILL_LENGTHS if n >= n_remaining), PREFILL_LENGTHS[-1])
    lengths = dict.fromkeys((wanted, *reversed(shorter), 1))
    return [_Kind(head, length, window) for length in lengths]


def _program(decoder: Decoder, max_length: int, cache: CacheDType, kind: _Kind) -> Program:
    chunked = kind.head in ("none", "logits")
    length = Dim("T", kind.length) if chunked else 1
    window = max_length if kind.window else 0
    slots = Dim("S", max_slots(max_length))
    return freeze(decoder_pass(decoder, length, slots, head=kind.head, cache=cache, window=window))
