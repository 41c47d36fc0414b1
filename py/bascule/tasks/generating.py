"""What text generation shares: streams, one generation at a time, retries, counters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, Literal, Protocol, TypeVar

from bascule.backend.base import Executable
from bascule.backend.tiers import tier_info
from bascule.base.turns import CrossLoopLock
from bascule.errors import NotFiniteError
from bascule.program.ops.sampling import NOT_A_TOKEN
from bascule.program.program import Program
from bascule.tasks.generation import GenerationStats, Pace, decode
from bascule.tasks.kv_cache import KvCache
from bascule.tasks.loaded import (
    DEVICE_ERRORS,
    NO_MEMORY,
    LoadedModel,
    ModelRun,
    Placement,
    ReopenedDevice,
)
from bascule.tasks.options import GenerationRequest
from bascule.tasks.streams import ResultStream
from bascule.text.language import TokenDecoder
from bascule.text.streaming import Detokeniser, StopStrings

StopReason = Literal["end", "stop", "length", "context", ""]


# Retries after running out of memory without a token: with caches freed, then with smaller chunks.
_TRIES_WITH_LESS = 2
# Devices that may be lost one after the other without a token: then the work itself is the cause.
DEVICES_IN_VAIN = 2


@dataclass(slots=True)
class Generation:
    """A generated text. `stop_reason`: "end" the model ended it, "stop" a stop string, "length" the
    requested tokens, "context" no more fit.
    """

    prompt_ids: list[int]
    text: str = ""
    ids: list[int] = field(default_factory=list[int])
    stop_reason: StopReason = ""
    stats: dict[str, float] = field(default_factory=dict[str, float])


class GenerationBuilder:
    """Builds a generation from tokens: the text, up to an end or a stop string."""

    def __init__(
        self,
        result: Generation,
        request: GenerationRequest,
        text: Detokeniser,
        ends: Collection[int],
    ) -> None:
        self.result, self.request = result, request
        self.stats = GenerationStats(prompt_tokens=len(result.prompt_ids))
        self._text, self._ends = text, ends
        self._stop = StopStrings(request.stop)
        self._called = perf_counter()

    def push(self, token: int) -> str:
        """Add a token, and return the text that is final by now; an end sets the stop reason."""
        stats, now = self.stats, perf_counter()
        stats.first_token_s = stats.first_token_s or now - self._called
        stats.new_tokens += 1
        stats.decode_s = now - self._called - stats.first_token_s
        if token in self._ends:
            self.result.stop_reason = "end"
            return ""
        self.result.ids.append(token)
        piece = self._stop.push(self._text.push(token))
        self.result.text += piece
        if self._stop.stopped is not None:
            self.result.stop_reason = "stop"
        return piece

    def rest(self) -> str:
        """Return the text that was held back, once no token follows."""
        rest = "" if self.result.stop_reason == "stop" else self._stop.push(self._text.flush())
        rest += self._stop.flush()
        self.result.text += rest
        return rest

    def end(self, crossings: int) -> GenerationStats:
        """Return the statistics, with that many crossings in total."""
        stats = self.stats
        stats.total_s = perf_counter() - self._called
        stats.crossings = crossings - stats.prompt_crossings
        return stats


class TextStream(ResultStream[str, Generation]):
    """A stream of text: `async for piece in stream`. `result` grows with the pieces.

    Leaving the loop early does not stop the generation; `await stream.aclose()` or `async with`
    does.
    """


class Programs(Protocol):
    """The prepared programs of a generating model."""

    longest: int  # tokens of a chunk

    @property
    def planned_nbytes(self) -> int:
        """Bytes of intermediate values of prepared programs."""
        ...

    def essential(self) -> list[Program]:
        """Return the programs of a generation that the device can hold."""
        ...

    def take_less(self) -> bool:
        """Use smaller chunks from now on; False if they are the smallest."""
        ...

    def close(self) -> None:
        """Free what was prepared."""
        ...


P = TypeVar("P", bound=Programs)


class GeneratingModel(LoadedModel, Generic[P]):
    """Base class of models that generate text, one generation at a time; others wait."""

    _cache: KvCache
    _programs: P

    def __init__(self, placement: Placement, decoder: TokenDecoder) -> None:
        super().__init__(placement)
        self._ends = decoder.ends
        self._turn = CrossLoopLock()
        self._earlier_crossings = 0  # of devices that were lost
        self._totals = {"prompt_tokens": 0.0, "new_tokens": 0.0, "generations": 0.0}
        self._totals["memory_retries"] = 0.0

    async def _read(
        self, result: Generation, request: GenerationRequest, stats: GenerationStats
    ) -> tuple[Executable, int, int]:
        """Write the prompt and the tokens of `result`, except the last, to the cache.

        Return the decode program, that last token, and how many more tokens the context holds.
        """
        raise NotImplementedError

    def _move(self, reopened: ReopenedDevice) -> None:
        self._earlier_crossings = self._crossings
        super()._move(reopened)
        self._allocate_early()

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """See `LoadedModel._alone`. Between two generations: it takes over the cache."""
        async with self._turn.turn(), self._device.turn():
            yield

    def _prepare_anew(self) -> None:
        """See `LoadedModel._prepare_anew`. The cache stays."""
        self._programs.close()

    def _tunable(self) -> list[Program]:
        return self._programs.essential()

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load."""
        results = {"cache_nbytes": self._cache.states.nbytes, "cache_slots": self._cache.slots}
        return {**results, **self._totals, **self.device_stats}

    async def _pieces(
        self, result: Generation, request: GenerationRequest, text: Detokeniser
    ) -> AsyncGenerator[str]:
        """Yield the pieces of one generation; `result` is complete when they end."""
        builder = GenerationBuilder(result, request, text, self._ends)
        async with self._turn.turn():
            self._check_open("generate")
            began = self._crossings
            pieces = self._written(builder)
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()
                self._note(result, builder.end(self._crossings - began))

    async def _written(self, builder: GenerationBuilder) -> AsyncGenerator[str]:
        """Yield the following pieces, from the passes over one text."""
        result = builder.result
        tokens = self._by_turns(self._tokens(result, builder.request, builder.stats))
        try:
            async for token in tokens:
                if piece := builder.push(token):
                    yield piece
                if result.stop_reason:
                    break
            if rest := builder.rest():
                yield rest
        finally:
            await tokens.aclose()

    async def _by_turns(self, tokens: AsyncGenerator[int]) -> AsyncGenerator[int]:
        """Yield the same tokens; the device is held only while the next one is computed."""
        try:
            while True:
                async with self._device.turn():
                    with self._while_open():
                        token = await anext(tokens, None)
                if token is None:
                    return
                yield token
        finally:
            async with self._device.turn():
                try:
                    await tokens.aclose()
                except Exception:
                    if not self._closed:  # else the step has raised, or the caller has stopped
                        raise

    async def _tokens(
        self, result: Generation, request: GenerationRequest, stats: GenerationStats
    ) -> AsyncGenerator[int]:
        """Yield the new tokens; continue if the device is lost, or memory runs out."""
        in_vain = 0
        while True:
            n_before, backend = len(result.ids), self.backend
            tokens = self._tokens_here(result, request, stats)
            try:
                async for token in tokens:
                    yield token
                return
            except DEVICE_ERRORS as lost:
                in_vain = 0 if len(result.ids) > n_before else in_vain + 1
                if in_vain > DEVICES_IN_VAIN:
                    raise
                await self.revive(lost, backend)
            except NO_MEMORY:
                in_vain = 1 if len(result.ids) > n_before else in_vain + 1
                if in_vain > _TRIES_WITH_LESS:
                    raise
                self._free_memory()
                if in_vain > 1:
                    self._programs.take_less()
            finally:
                await tokens.aclose()

    async def _tokens_here(
        self, result: Generation, request: GenerationRequest, stats: GenerationStats
    ) -> AsyncGenerator[int]:
        """Yield the tokens that follow those of `result`, on this device; sets the stop reason.

        NotFiniteError instead of a token from logits that are not finite.
        """
        self._renew()
        crossings = self._crossings
        executable, last, room = await self._read(result, request, stats)
        stats.prompt_crossings += self._crossings - crossings
        remaining = request.max_new_tokens - len(result.ids)
        cache, start = self._cache, len(self._cache.ids)
        tokens = decode(
            cache,
            executable,
            last,
            settings=request.settings,
            max_tokens=min(remaining, room),
            slide=request.slide,
            pace=self._pace(request.steps_in_flight),
            pause=self._pause_under_pressure,
            stats=stats,
        )
        n_new = 0
        async with aclosing(tokens):
            async for token in tokens:
                if token == NOT_A_TOKEN:
                    cache.forget()  # its keys and values may be what is broken
                    where = f"a logit after token {start + n_new}"
                    raise NotFiniteError(self.name, where, self.tier)
                n_new += 1
                yield token
        result.stop_reason = "length" if room >= remaining else "context"

    def _note(self, result: Generation, stats: GenerationStats) -> None:
        stats.gpu_nbytes = int(self._backend.stats.get("gpu_nbytes", 0))
        if not self._closed:
            stats.cache_nbytes = self._cache.states.nbytes
        result.stats = stats.as_json()
        self._totals["prompt_tokens"] += stats.prompt_tokens
        self._totals["new_tokens"] += stats.new_tokens
        self._totals["generations"] += 1
        self._notify(
            ModelRun(
                "generate",
                stats.total_s,
                stats.prompt_tokens - stats.reused_tokens,
                stats.new_tokens,
                stats.first_token_s,
                stats.decode_s,
            )
        )

    @property
    def _crossings(self) -> int:
        return self._earlier_crossings + int(self._backend.stats.get("crossings", 0))

    def _pace(self, steps_in_flight: int) -> Pace:
        if not tier_info(self.tier).is_async:  # a step there is over when it is asked for
            return Pace(1, 1)
        return Pace(max(1, steps_in_flight // 2), min(2, steps_in_flight))

    def _close_programs(self) -> None:
        self._programs.close()
        self._cache.states.close()

    def _trim_programs(self) -> None:
        if not self._turn.locked():  # a generation uses them all
            self._close_programs()

    @property
    def _planned_nbytes(self) -> int:
        return self._programs.planned_nbytes + self._cache.states.nbytes

    def _free_memory(self) -> None:
        """Free everything but the weights: memory has run out during a generation."""
        self._totals["memory_retries"] += 1
        self._close_programs()
        self._backend.trim()

    def _renew(self) -> None:
        """Allocate a cache again if it was freed for its memory."""
        if not self._cache.states.nbytes:
            longest = self._programs.longest
            self._allocate_early()
            self._programs.longest = longest


async def whole_text(stream: TextStream) -> Generation:
    """Read a stream to its end."""
    async with stream:
        async for _ in stream:
            pass
    return stream.result
