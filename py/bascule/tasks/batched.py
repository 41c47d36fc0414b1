"""Models whose passes take batches of whole texts: an encoder, and what follows it."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Protocol

from bascule.backend.base import Executable, shaped
from bascule.base.arguments import flag, strings, whole_number
from bascule.base.arrays import all_finite
from bascule.base.turns import CrossLoopLock
from bascule.base.waiting import all_or_first_error
from bascule.errors import InputError, NotFiniteError
from bascule.program.program import Program
from bascule.program.rewrites.registry import LimitFitter
from bascule.program.rewrites.rewrite import Limits
from bascule.tasks.buckets import (
    BATCH_LIMITS,
    MAX_ROWS,
    SMALLEST,
    Batch,
    Bucket,
    all_buckets,
    make_batches,
    smaller,
)
from bascule.tasks.loaded import DEVICE_ERRORS, NO_MEMORY, LoadedModel, ModelRun, Placement
from bascule.tasks.proof import Sample
from bascule.text import Tokenizer, check_unicode

# Texts that are tokenized at once, before other tasks run.
SLICE = 1024


@dataclass(frozen=True, slots=True)
class PassLimits:
    """Limits of a model's passes.

    `in_flight` batches are awaited together, so that the wait for one read overlaps the next pass.
    `kept` prepared buckets keep their intermediate buffers; the least recently used is dropped
    first. `rows` (texts x tokens) limits a pass of several texts.
    """

    in_flight: int = 4
    kept: int = 6
    rows: int = MAX_ROWS


class BatchSettings(Protocol):
    """The settings that determine a batched model's passes."""

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text."""
        ...

    def program(self, bucket: Bucket) -> Program:
        """Return a bucket's pass: ids (B, T) and lengths (B) u32 -> a row of numbers per text."""
        ...


def max_rows(settings: BatchSettings, limits: Limits) -> int:
    """Return the rows (texts x tokens) of a pass whose values keep the limits; at least one."""
    if limits.binding_nbytes == inf:
        return MAX_ROWS
    widest = max(call.result.nbytes for call in settings.program(SMALLEST).calls)
    return max(1, int(min(MAX_ROWS, limits.binding_nbytes / widest)))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of texts; `per_token` and `per_text` are further u32 inputs of a pass, by name."""

    ids: Sequence[Sequence[int]]
    per_token: Mapping[str, Sequence[Sequence[int]]] = field(
        default_factory=dict[str, Sequence[Sequence[int]]]
    )
    per_text: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each text."""
        return [len(each) for each in self.ids]


@dataclass(slots=True)
class _Prepared:
    executable: Executable
    program: Program
    running: int = 0
    stale: bool = False  # chosen before the last tuning


@dataclass(frozen=True, slots=True)
class _Ran:
    """A pass: the share of its program's largest sizes, and its time."""

    program: Program
    share: float
    seconds: float


@dataclass(slots=True)
class _Counts:
    passes: int = 0
    texts: int = 0
    tokens: int = 0
    busy_s: float = 0.0
    host_s: float = 0.0
    memory_retries: int = 0


class BatchedModel(LoadedModel):
    """Base class of models over batches of texts: buckets, retries, tuning and counters.

    A text's row has `width` numbers; `what` names it in errors.
    """

    _what = "the row"
    _verb = "run"

    def __init__(self, placement: Placement, settings: BatchSettings, width: int) -> None:
        self._passes = settings
        self._pass_limits = PassLimits()
        super().__init__(placement)
        self.max_tokens = settings.max_tokens
        self._width = width
        self._prepared: dict[Bucket, _Prepared] = {}
        self._preparing = CrossLoopLock()
        self._counts = _Counts()
        self._counting = threading.Lock()

    async def _rows_of_texts(
        self,
        texts: Sequence[str],
        tokenizer: Tokenizer,
        encoded: Callable[[list[list[int]]], Encoded],
        *,
        batch_size: int | None,
        truncate: bool,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[memoryview[float], tuple[int, ...], tuple[int, ...]]:
        """Tokenize texts and run their passes; return rows as `_rows`, each text's tokens, and
        which were cut.

        InputError for the first text that is cut, unless `truncate`.
        """
        flag("truncate", truncate)
        started = perf_counter()
        ids = await in_slices(tokenizer.encode, texts)
        lengths = tuple(map(len, ids))
        full = [at for at, length in enumerate(lengths) if length >= self.max_tokens]
        counts = tokenizer.count([texts[at] for at in full]) if full else []
        cut = {at: n for at, n in zip(full, counts, strict=True) if n > self.max_tokens}
        if not truncate:
            check_uncut(self._verb, cut, self.max_tokens)
        rows = await self._rows(encoded(ids), batch_size=batch_size, progress=progress)
        self._count(lengths, perf_counter() - started)
        return rows, lengths, tuple(cut)

    async def _rows(
        self,
        encoded: Encoded,
        *,
        batch_size: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> memoryview[float]:
        """Run the passes of texts; return (n * width,) float32 in the given order."""
        max_texts = BATCH_LIMITS[-1]
        if batch_size is not None:
            max_texts = min(max_texts, whole_number("batch_size", batch_size, 1))
        lengths, columns = encoded.lengths, self._width
        result = memoryview(bytearray(4 * len(lengths) * columns)).cast("f")
        batches = make_batches(lengths, self.max_tokens, self._max_rows, max_texts)
        done = 0
        ran: list[_Ran] = []
        gate = asyncio.Semaphore(self._pass_limits.in_flight)

        async def run(batch: Batch) -> None:
            nonlocal done
            async with gate:
                await self._pause_under_pressure()
                async with self._device.turn():
                    with self._while_open(), self._timed(batch, ran):
                        rows = await self._retried(batch, encoded)
                for row, index in enumerate(batch.indices):
                    result[index * columns : (index + 1) * columns] = rows[
                        row * columns : (row + 1) * columns
                    ]
            done += len(batch.indices)
            if progress is not None:
                progress(done, len(lengths))

        await all_or_first_error([run(batch) for batch in batches])
        if self._watch is not None and len(ran) == len(batches):
            passes = [(each.program, each.share) for each in ran]
            await self._watch(self.tier, passes, sum(each.seconds for each in ran))
        return result

    def _count(self, lengths: Sequence[int], seconds: float) -> None:
        with self._counting:
            self._counts.texts += len(lengths)
            self._counts.tokens += sum(lengths)
            self._counts.busy_s += seconds
        self._notify(ModelRun(self._verb, seconds, sum(lengths)))

    @contextmanager
    def _timed(self, batch: Batch, ran: list[_Ran]) -> Generator[None]:
        """Time a batch, unless it prepares its bucket, which would distort the time."""
        bucket = batch.bucket
        prepared = self._prepared.get(bucket)
        started = perf_counter()
        yield
        if prepared is not None:
            share = len(batch.indices) * batch.tokens / (bucket.batch * bucket.tokens)
            ran.append(_Ran(prepared.program, share, perf_counter() - started))

    async def prepare(self, batch: int = 1, tokens: int = 16) -> None:
        """Prepare the program of one bucket before it is needed."""
        async with self._device.turn():
            await self._prepare(batch, tokens)

    async def _prepare(self, batch: int = 1, tokens: int = 16) -> None:
        lengths = [min(tokens, self.max_tokens)] * batch
        batches = make_batches(lengths, self.max_tokens, self._max_rows)
        await self._executable(batches[0].bucket)

    def _holds(self, n_tokens: int) -> bool:
        return n_tokens < self.max_tokens

    def _sample_programs(self, sample: Sample) -> list[Program]:
        return [self._passes.program(self._sample_batch(sample).bucket)]

    async def _answer(self, sample: Sample) -> Sequence[float]:
        """Return the first numbers of the row of a sample's ids."""
        result = await self._run(self._sample_batch(sample), self._of_ids(sample.ids))
        return result[: len(sample.numbers)].tolist()

    def _of_ids(self, ids: Sequence[int]) -> Encoded:
        """Return one text's ids, with the other inputs of a pass."""
        return Encoded([ids])

    def _sample_batch(self, sample: Sample) -> Batch:
        return make_batches([len(sample.ids)], self.max_tokens, self._max_rows)[0]

    def _tunable(self) -> list[Program]:
        """See `LoadedModel._tunable`: buckets in use, the latest first, then others by size."""
        used = list(reversed(self._prepared))  # the latest first
        others = [b for b in all_buckets(self.max_tokens, self._max_rows) if b not in used]
        others.sort(key=lambda b: b.batch * b.tokens)
        return self._fitting.fit_possible(map(self._passes.program, [*used, *others]))

    @property
    def _batch_stats(self) -> dict[str, float]:
        """Counters since the load, including those of the device."""
        plans = [p.program for p in self._prepared.values()]
        return {
            "planned_nbytes": self._planned_nbytes,
            "naive_nbytes": sum(p.naive_nbytes for p in plans),
            "passes": self._counts.passes,
            "texts": self._counts.texts,
            "tokens": self._counts.tokens,
            "host_ms": 1e3 * self._counts.host_s,
            "memory_retries": self._counts.memory_retries,
            **self.device_stats,
        }

    def _fit_to(self, fitting: LimitFitter, reason: str) -> None:
        super()._fit_to(fitting, reason)
        rows = max_rows(self._passes, fitting.limits)
        self._max_rows = min(rows, self._pass_limits.rows)

    def _limit_passes(self, limits: PassLimits) -> None:
        """Apply these limits from the next pass on, on any device."""
        self._pass_limits = limits
        self._max_rows = min(max_rows(self._passes, self._fitting.limits), limits.rows)
        self._trim_programs()

    def _close_programs(self) -> None:
        for prepared in self._prepared.values():
            prepared.executable.close()
        self._prepared.clear()

    def _trim_programs(self) -> None:
        for bucket in [b for b, p in self._prepared.items() if not p.running]:
            self._prepared.pop(bucket).executable.close()

    @property
    def _planned_nbytes(self) -> int:
        return sum(p.program.planned_nbytes for p in self._prepared.values())

    async def _retried(self, batch: Batch, encoded: Encoded) -> memoryview[float]:
        """Return a batch's rows; if memory runs out, from smaller batches."""
        backend = self.backend
        try:
            return await self._run(batch, encoded)
        except DEVICE_ERRORS as lost:
            await self.revive(lost, backend)
        except NO_MEMORY:
            self._counts.memory_retries += 1
            self.trim()
            parts = smaller(batch, encoded.lengths, self.max_tokens, self._max_rows)
            if parts:
                rows = [(await self._retried(part, encoded)).cast("B") for part in parts]
                return memoryview(b"".join(rows)).cast("f")
        return await self._run(batch, encoded)

    async def _run(self, batch: Batch, encoded: Encoded) -> memoryview[float]:
        prepared = await self._executable(batch.bucket)
        started = perf_counter()
        count = len(batch.indices)
        inputs = _inputs(batch, encoded)
        width = prepared.program.outputs[0].limits[-1]  # of which `_width` are wanted
        rows = memoryview(bytearray(4 * count * width)).cast("f")
        before = prepared.executable.host_s
        self._counts.host_s += perf_counter() - started
        prepared.running += 1
        try:
            await prepared.executable.run({"B": count, "T": batch.tokens}, inputs, [rows])
        finally:
            prepared.running -= 1
        self._counts.host_s += prepared.executable.host_s - before
        self._counts.passes += 1
        columns = self._width
        if width > columns:
            wanted = (rows[row * width :][:columns] for row in range(count))
            rows = memoryview(b"".join(row.cast("B") for row in wanted)).cast("f")
        if not all_finite(rows):
            each = (rows[row * columns : (row + 1) * columns] for row in range(count))
            broken = [not all_finite(row) for row in each]
            text = batch.indices[broken.index(True)]
            raise NotFiniteError(self.name, f"{self._what} of text {text}", self.tier)
        return rows

    async def _executable(self, bucket: Bucket) -> _Prepared:
        async with self._preparing.turn():
            result = self._prepared.pop(bucket, None)
            if result is not None and result.stale and not result.running:
                result.executable.close()
                result = None
            if result is None:
                self._drop_old_buckets()
                program = self._fitting.fit(self._passes.program(bucket))
                executable = await self._backend.prepare(program, self.weights)
                result = _Prepared(executable, program)
            self._prepared[bucket] = result  # last in the dict: most recently used
            return result

    def _prepare_anew(self) -> None:
        """Drop idle buckets now, and running ones when they are next requested and idle."""
        for bucket, prepared in list(self._prepared.items()):
            prepared.stale = True
            if not prepared.running:
                self._prepared.pop(bucket).executable.close()

    def _drop_old_buckets(self) -> None:
        idle = [b for b, p in self._prepared.items() if not p.running]
        for bucket in idle[: max(0, len(self._prepared) - self._pass_limits.kept + 1)]:
            self._prepared.pop(bucket).executable.close()


def _inputs(batch: Batch, encoded: Encoded) -> dict[str, memoryview]:
    """Return a pass's inputs, padded with zeros to the longest text."""
    count, tokens = len(batch.indices), batch.tokens

    def padded(rows: Sequence[Sequence[int]]) -> memoryview:
        flat = array("I")
        for index in batch.indices:
            flat.extend(rows[index])
            flat.frombytes(bytes(4 * (tokens - len(rows[index]))))
        return shaped(flat, "u32", (count, tokens))

    def column(numbers: Sequence[int]) -> memoryview:
        return memoryview(array("I", [numbers[index] for index in batch.indices]))

    lengths = array("I", [len(encoded.ids[index]) for index in batch.indices])
    results = {"ids": padded(encoded.ids), "lengths": memoryview(lengths)}
    results |= {name: padded(rows) for name, rows in encoded.per_token.items()}
    return results | {name: column(numbers) for name, numbers in encoded.per_text.items()}


async def in_slices(
    encode: Callable[[Sequence[str]], list[list[int]]], texts: Sequence[str]
) -> list[list[int]]:
    """Return the token ids of texts; other tasks run between two slices."""
    ids: list[list[int]] = []
    for start in range(0, len(texts), SLICE):
        if start:
            await asyncio.sleep(0)
        ids += encode(texts[start : start + SLICE])
    return ids


def check_uncut(verb: str, cut: Mapping[int, int], max_tokens: int) -> None:
    """InputError for the first text that is cut, with its number of tokens."""
    for at, n_tokens in cut.items():
        hint = "Shorten it, or let it be cut with truncate=True."
        expected = f"at most {max_tokens:,} tokens"
        raise InputError(f"{verb}, text {at}", expected, f"{n_tokens:,}", hint=hint)


def checked_texts(verb: str, texts: str | Iterable[str]) -> list[str]:
    """Return a list from a string, or an iterable of strings; InputError for anything else."""
    result = strings(f"{verb}, texts", texts)
    for index, text in enumerate(result):
        check_unicode(text, f"{verb}, text {index}")
    return result
