"""The programs of a language model, each prepared when it is first needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bascule.backend.base import Backend, Executable, StateStore, WeightStore
from bascule.model.llama import CacheDType, Head, decoder
from bascule.model.llama_config import LlamaConfig
from bascule.program.compile import freeze
from bascule.program.program import Dim, Program, Value

# Tokens of a prefill pass: bounds how long a dispatch runs, and so how long a page stands still.
PREFILL_LENGTHS = (16, 64)


@dataclass(frozen=True, slots=True)
class _Kind:
    head: Head
    length: int
    window: bool


def essential_programs(config: LlamaConfig, max_length: int, cache: CacheDType) -> list[Program]:
    """Those that a generation is made of; the first one has every parameter."""
    kinds = [_Kind("argmax", 1, False), _Kind("sample", 1, False)]
    kinds += [_Kind("none", n, False) for n in PREFILL_LENGTHS]
    return [_program(config, max_length, cache, kind) for kind in kinds]


def all_states(config: LlamaConfig, max_length: int, cache: CacheDType) -> tuple[Value, ...]:
    """All states that any of the programs has."""
    return _program(config, max_length, cache, _Kind("sample", 1, False)).states


def most_slots(max_length: int) -> int:
    """Slots of a whole cache: a prefill chunk fits beside the window, and overwrites none of it."""
    return max_length + PREFILL_LENGTHS[-1]


class LanguagePrograms:
    """Prefill, decode and logits programs over one set of states."""

    def __init__(
        self,
        backend: Backend,
        config: LlamaConfig,
        weights: WeightStore,
        states: StateStore,
        max_length: int,
        cache: CacheDType,
    ) -> None:
        self._backend = backend
        self._config = config
        self._weights = weights
        self._states = states
        self._max_length = max_length
        self._cache: CacheDType = cache
        self._made: dict[_Kind, Executable] = {}
        self._making = asyncio.Lock()

    def essential(self) -> list[Program]:
        """See `essential_programs`."""
        return essential_programs(self._config, self._max_length, self._cache)

    def of_sample(self, length: int) -> list[Program]:
        """Those that give the logits of so many tokens, and the next token."""
        kinds = (_Kind("logits", _chunk(length), False), _Kind("argmax", 1, False))
        return [self._program(kind) for kind in kinds]

    async def prefill(self, left: int, *, window: bool) -> tuple[int, Executable]:
        """The program for the next chunk of `left` tokens, and how many it takes."""
        length = _chunk(left)
        return length, await self._executable(_Kind("none", length, window))

    async def logits(self, left: int) -> tuple[int, Executable]:
        """The same with all logits as its output."""
        length = _chunk(left)
        return length, await self._executable(_Kind("logits", length, False))

    async def decode(self, head: Head, *, window: bool) -> Executable:
        """The program that takes one token and gives the next."""
        return await self._executable(_Kind(head, 1, window))

    def close(self, head: Head | None = None) -> None:
        """Free what was prepared, or only what has that end; the states stay."""
        for kind in [k for k in self._made if head in (None, k.head)]:
            self._made.pop(kind).close()

    async def _executable(self, kind: _Kind) -> Executable:
        async with self._making:
            found = self._made.get(kind)
            if found is None:
                program = self._program(kind)
                found = await self._backend.prepare(program, self._weights, self._states)
                self._made[kind] = found
            return found

    def _program(self, kind: _Kind) -> Program:
        return _program(self._config, self._max_length, self._cache, kind)


def _chunk(left: int) -> int:
    return next((n for n in PREFILL_LENGTHS if n >= left), PREFILL_LENGTHS[-1])


def _program(config: LlamaConfig, max_length: int, cache: CacheDType, kind: _Kind) -> Program:
    chunked = kind.head in ("none", "logits")
    length = Dim("T", kind.length) if chunked else 1
    window = max_length if kind.window else 0
    slots = Dim("S", most_slots(max_length))
    return freeze(decoder(config, length, slots, head=kind.head, cache=cache, window=window))
