"""One generation: prefill in chunks, then decode with several steps in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from bascule.backend.base import Executable
from bascule.tasks.kv_cache import KvCache

# Returns the program for a chunk of at most that many tokens, and the chunk's size.
Chunked = Callable[[int], Awaitable[tuple[int, Executable]]]

# Prefill passes queued ahead: enough to keep the device busy, few enough to stop soon.
_PREFILL_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Pace:
    """How decoding is batched: steps per replay, and replays in flight."""

    steps: int
    in_flight: int


@dataclass(slots=True)
class GenerationStats:
    """Statistics of one generation. Seconds count from the call; rates are tokens per second.

    `crossings` are calls of the driver's verbs (in a page: into JavaScript) for the new tokens,
    `prompt_crossings` those for the prompt.
    """

    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    surplus_tokens: int = 0
    first_token_s: float = 0.0
    decode_s: float = 0.0
    total_s: float = 0.0
    prompt_crossings: int = 0
    crossings: int = 0
    cache_nbytes: int = 0
    gpu_nbytes: int = 0

    def as_json(self) -> dict[str, float]:
        """Return all of it, with the rates."""
        computed = self.prompt_tokens - self.reused_tokens
        after_first = max(0, self.new_tokens - 1)
        return {
            "prompt_tokens": self.prompt_tokens,
            "reused_tokens": self.reused_tokens,
            "new_tokens": self.new_tokens,
            "surplus_tokens": self.surplus_tokens,
            "first_token_ms": 1e3 * self.first_token_s,
            "total_ms": 1e3 * self.total_s,
            "prefill_tokens_per_s": computed / self.first_token_s if self.first_token_s else 0.0,
            "decode_tokens_per_s": after_first / self.decode_s if self.decode_s else 0.0,
            "prompt_crossings": self.prompt_crossings,
            "crossings_per_token": self.crossings / max(1, self.new_tokens),
            "cache_nbytes": self.cache_nbytes,
            "gpu_nbytes": self.gpu_nbytes,
        }


async def prefill(
    cache: KvCache,
    chunked: Chunked,
    ids: Sequence[int],
    *,
    done: Callable[[], Awaitable[None]],
    slide: bool,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the keys and values of `ids` to the cache, after those that it has.

    `done` is `Backend.done`: it limits the passes in flight, and fails if the device is lost.
    """
    waiting: deque[Awaitable[None]] = deque()
    start, total = len(cache.ids), len(ids)
    await cache.reserve(start + total, slide=slide)
    n_queued = 0
    try:
        while n_queued < total:
            limit, executable = await chunked(total - n_queued)
            chunk = ids[n_queued : n_queued + limit]
            cache.write_tokens(start + n_queued, chunk)
            cache.set_position(start + n_queued, len(chunk))
            await executable.submit({**cache.sizes, "T": len(chunk)}, {})
            n_queued += len(chunk)
            waiting.append(done())
            if len(waiting) >= _PREFILL_IN_FLIGHT:
                await waiting.popleft()
            cache.ids.extend(chunk)
            if progress is not None:
                progress(n_queued, total)
    finally:
        await _all(waiting)


async def decode(
    cache: KvCache,
    executable: Executable,
    last: int,
    *,
    settings: bytes,
    max_tokens: int,
    slide: bool,
    pace: Pace,
    pause: Callable[[], Awaitable[bool]],
    stats: GenerationStats,
) -> AsyncGenerator[int]:
    """Feed token `last`, then yield at most `max_tokens` new ones; the caller may stop at any time.

    `pause` is awaited before more is queued; if it returns True nothing is queued ahead. Each
    step's token stays on the device, where the next step reads it. The cache's `ids` end before the
    token that was yielded last: what was computed past it is discarded.
    """
    start = len(cache.ids)
    await cache.reserve(start + 2, slide=slide)
    cache.write_tokens(start, [last])
    cache.set_position(start, 1)
    cache.states.write("settings", 0, settings)
    asked = n_yielded = 0
    flights: deque[tuple[memoryview, list[Awaitable[None]]]] = deque()
    try:
        while n_yielded < max_tokens:
            in_flight = 1 if await pause() else pace.in_flight
            while asked < max_tokens and len(flights) < in_flight:
                # The first token is read separately: the user waits for it.
                steps = min(pace.steps, max_tokens - asked) if asked else 1
                await cache.reserve(start + asked + steps + 1, slide=slide)
                await executable.submit(cache.sizes, {}, steps)
                flights.append(cache.read_tokens(start + asked + 1, steps))
                asked += steps
                cache.note_written(start + asked)
            result, waits = flights.popleft()
            await _all(waits)
            for token in result:
                cache.ids.append(last)
                last = token
                n_yielded += 1
                yield token
    finally:
        stats.surplus_tokens = asked - n_yielded
        for _, waits in flights:
            await _all(waits)


async def _all(waits: Iterable[Awaitable[None]]) -> None:
    for wait in waits:
        await wait
