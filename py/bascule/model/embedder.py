"""A sentence encoder ready for use: texts in, embeddings out."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from bascule.arguments import described, strings, whole_number
from bascule.arrays import all_finite, need_numpy, np
from bascule.backend.base import Backend, Executable, TuneReport, WeightStore, shaped
from bascule.dtypes import DType
from bascule.errors import InputError, NotFiniteError
from bascule.model.buckets import (
    BATCH_LIMITS,
    MOST_ROWS,
    SMALLEST,
    Batch,
    Bucket,
    all_buckets,
    make_batches,
    smaller,
)
from bascule.model.loaded import DEVICE_ERRORS, NO_MEMORY, LoadedModel
from bascule.model.prompts import Prompts
from bascule.model.proof import Sample
from bascule.model.sentence_graph import Encoder, sentence_encoder
from bascule.model.sentence_modules import DEFAULT_MODULES, Module, skips_prompts
from bascule.program.compile import freeze
from bascule.program.program import Dim, Program
from bascule.program.rewrites.registry import Fitting
from bascule.program.rewrites.rewrite import Limits
from bascule.progress import ProgressCallback
from bascule.text import Tokenizer, check_unicode
from bascule.turns import CrossLoopLock
from bascule.waiting import all_or_first_error

if TYPE_CHECKING:
    from bascule.model.embeddings import Embeddings

# Batches whose results are awaited together: hides the wait for one read behind the next pass.
_IN_FLIGHT = 4
# Texts that are tokenized at once.
_SLICE = 1024
# Prepared buckets that keep their intermediate buffers; the least recently used goes first.
_KEPT_BUCKETS = 6


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """What a model folder says beside the weights, and what these are stored as.

    Of an embedding the first `truncate_dim` numbers are given (None: all).
    """

    encoder: Encoder
    max_tokens: int
    modules: tuple[Module, ...] = DEFAULT_MODULES
    prompts: Prompts = field(default_factory=Prompts)
    truncate_dim: int | None = None
    weights: DType = "f32"

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        (output,) = self.program(SMALLEST).outputs
        width = output.limits[-1]
        return width if self.truncate_dim is None else min(self.truncate_dim, width)

    def program(self, bucket: Bucket) -> Program:
        """The forward pass of one bucket."""
        batch, tokens = Dim("B", bucket.batch), Dim("T", bucket.tokens)
        return freeze(
            sentence_encoder(
                self.encoder,
                batch,
                tokens,
                modules=self.modules,
                weights=self.weights,
            )
        )

    def programs(self) -> list[Program]:
        """The forward passes of all buckets."""
        return [self.program(bucket) for bucket in all_buckets(self.max_tokens)]

    def most_rows(self, limits: Limits) -> int:
        """Rows (texts x tokens) of a pass whose every value is within the limits; at least one."""
        widest = max(call.result.nbytes for call in self.program(SMALLEST).calls)
        return max(1, int(min(MOST_ROWS, limits.binding_nbytes / widest)))


@dataclass(slots=True)
class _Prepared:
    executable: Executable
    program: Program
    running: int = 0
    stale: bool = False  # chosen before the last tuning


@dataclass(frozen=True, slots=True)
class _Ran:
    """A pass: the share of its program's largest sizes, and what it took."""

    program: Program
    share: float
    seconds: float


@dataclass(slots=True)
class _Counts:
    passes: int = 0
    texts: int = 0
    tokens: int = 0
    embed_s: float = 0.0
    host_s: float = 0.0
    memory_retries: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddedRows:
    """Embeddings as (n * C,) float32, row by row; the rest as `Embeddings` has it."""

    rows: memoryview[float]
    n_tokens: tuple[int, ...]
    truncated: tuple[int, ...]


class EmbeddingModel(LoadedModel):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory."""

    def __init__(
        self,
        name: str,
        settings: EmbedderSettings,
        tokenizer: Tokenizer,
        backend: Backend,
        weights: WeightStore,
        *,
        tier_reason: str,
        fitting: Fitting | None = None,
        owns_backend: bool = True,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        super().__init__(
            name,
            backend,
            weights,
            tier_reason=tier_reason,
            fitting=fitting,
            owns_backend=owns_backend,
            on_close=on_close,
        )
        self.dimension = settings.dimension
        self.max_tokens = settings.max_tokens
        self._tokenizer = tokenizer
        self._prepared: dict[Bucket, _Prepared] = {}
        self._preparing = CrossLoopLock()
        self._counts = _Counts()
        self._counting = threading.Lock()

    @property
    def prompts(self) -> Mapping[str, str]:
        """The model's prompts by name."""
        return self._settings.prompts.texts

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Embeddings:
        """Embed texts: float32 (n, C) in the order given; of length 1 where the model says so.

        `texts` are a string or any ordered iterable of them (a list, a numpy array, a pandas
        Series, a generator). Each text follows `prompt`, or the model's prompt of that name
        (`prompts` has them), or the prompt that the model applies by default. Texts are cut at
        `max_tokens` tokens, which the result's `truncated` names; unless `truncate`, a longer one
        is an InputError. At most `batch_size` texts, 32 by default and at the most, run in one
        pass. `progress(done, total)` counts texts. InputError for anything but strings or for a
        prompt that the model does not have, NotFiniteError instead of an embedding that is none.
        Cancelling the task stops after the batches in flight. Where memory ends, caches are freed
        and smaller batches tried; GpuOutOfMemoryError or MemoryError if not even one text fits.
        """
        await need_numpy("embed()", "embed_rows() gives the same numbers as a memoryview.")
        found = await self.embed_rows(
            texts,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )
        # Imported here, for it imports numpy.
        from bascule.model.embeddings import embeddings_of

        array = np.asarray(found.rows).reshape(-1, self.dimension)
        return embeddings_of(array, found.n_tokens, found.truncated)

    async def embed_rows(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> EmbeddedRows:
        """As `embed`, without numpy."""
        self._check_open("embed")
        before = self._settings.prompts.choose(prompt, prompt_name)
        checked = [before + text for text in _checked_texts(texts)]
        most_texts = BATCH_LIMITS[-1]
        if batch_size is not None:
            most_texts = min(most_texts, whole_number("batch_size", batch_size, 1))
        if not isinstance(truncate, bool):
            raise InputError("truncate", "True or False", described(truncate))
        skipped = self._skipped(before)
        started = perf_counter()
        ids = await self._encoded(checked)
        lengths = [len(i) for i in ids]
        truncated = self._truncated(checked, lengths, refuse=not truncate)
        columns = self.dimension
        result = memoryview(bytearray(4 * len(checked) * columns)).cast("f")
        batches = make_batches(lengths, self.max_tokens, self._most_rows, most_texts)
        done = 0
        ran: list[_Ran] = []
        gate = asyncio.Semaphore(_IN_FLIGHT)

        async def run(batch: Batch) -> None:
            nonlocal done
            async with gate:
                await self._rest()
                async with self._device.turn():
                    with self._while_open(), self._timed(batch, ran):
                        rows = await self._embedded(batch, ids, skipped)
                for row, index in enumerate(batch.indices):
                    result[index * columns : (index + 1) * columns] = rows[
                        row * columns : (row + 1) * columns
                    ]
            done += len(batch.indices)
            if progress is not None:
                progress(done, len(checked))

        await all_or_first_error([run(batch) for batch in batches])
        if self._watch is not None and len(ran) == len(batches):
            passes = [(each.program, each.share) for each in ran]
            await self._watch(self.tier, passes, sum(each.seconds for each in ran))
        with self._counting:
            self._counts.texts += len(checked)
            self._counts.tokens += sum(lengths)
            self._counts.embed_s += perf_counter() - started
        return EmbeddedRows(result, tuple(lengths), truncated)

    async def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Their token ids; others have a turn between two slices."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), _SLICE):
            if start:
                await asyncio.sleep(0)
            ids += self._tokenizer.encode(texts[start : start + _SLICE])
        return ids

    def _truncated(
        self, texts: Sequence[str], lengths: Sequence[int], *, refuse: bool
    ) -> tuple[int, ...]:
        """Which texts were cut; InputError for the first one where that is to be refused."""
        full = [at for at, length in enumerate(lengths) if length >= self.max_tokens]
        counts = self._tokenizer.count([texts[at] for at in full]) if full else []
        found = {at: n for at, n in zip(full, counts, strict=True) if n > self.max_tokens}
        if found and refuse:
            at, n = next(iter(found.items()))
            hint = "Shorten it, or let it be cut with truncate=True."
            expected = f"at most {self.max_tokens:,} tokens"
            raise InputError(f"embed, text {at}", expected, f"{n:,}", hint=hint)
        return tuple(found)

    def _skipped(self, prompt: str) -> int:
        """How many tokens of each text are the prompt's, where they are left out of the pooling."""
        if not prompt or not skips_prompts(self._settings.modules):
            return 0
        alone, empty = self._tokenizer.encode([prompt, ""])
        ends_special = bool(alone and empty) and alone[-1] == empty[-1]
        return len(alone) - ends_special

    @contextmanager
    def _timed(self, batch: Batch, ran: list[_Ran]) -> Generator[None]:
        """Note what a batch takes, unless it has its bucket prepared, which tells nothing."""
        bucket = batch.bucket
        prepared = self._prepared.get(bucket)
        started = perf_counter()
        yield
        if prepared is not None:
            share = len(batch.indices) * batch.tokens / (bucket.batch * bucket.tokens)
            ran.append(_Ran(prepared.program, share, perf_counter() - started))

    async def prepare(self, batch: int = 1, tokens: int = 16) -> None:
        """Make the program of one bucket ready before it is needed."""
        async with self._device.turn():
            await self._prepare(batch, tokens)

    async def _prepare(self, batch: int = 1, tokens: int = 16) -> None:
        lengths = [min(tokens, self.max_tokens)] * batch
        batches = make_batches(lengths, self.max_tokens, self._most_rows)
        await self._executable(batches[0].bucket)

    def _holds(self, n_tokens: int) -> bool:
        """See `LoadedModel._holds`."""
        return n_tokens < self.max_tokens

    def _sample_programs(self, sample: Sample) -> list[Program]:
        """See `LoadedModel._sample_programs`."""
        return [self._settings.program(self._sample_batch(sample).bucket)]

    async def _answer(self, sample: Sample) -> Sequence[float]:
        """The first numbers of the embedding of a sample's ids."""
        found = await self._run(self._sample_batch(sample), [sample.ids])
        return found[: len(sample.numbers)].tolist()

    def _sample_batch(self, sample: Sample) -> Batch:
        return make_batches([len(sample.ids)], self.max_tokens, self._most_rows)[0]

    async def tune(
        self, budget_s: float = 30.0, *, progress: ProgressCallback | None = None
    ) -> TuneReport:
        """Measure on this device which kernels are fastest for this model; they serve from then on.

        The buckets in use come first, the latest before the others, then those never used, small
        ones first. What is measured is remembered for the next load. Cancelling keeps what is
        finished.
        """
        self._check_open("tune")
        async with self._alone():
            with self._while_open():
                return await self._tune(budget_s, progress)

    async def _tune(self, budget_s: float, progress: ProgressCallback | None) -> TuneReport:
        used = list(reversed(self._prepared))  # the latest first
        others = [b for b in all_buckets(self.max_tokens, self._most_rows) if b not in used]
        others.sort(key=lambda b: b.batch * b.tokens)
        programs = self._fitting.able(map(self._settings.program, [*used, *others]))
        try:
            report = await self._backend.tune(programs, budget_s=budget_s, progress=progress)
        finally:
            self._prepare_anew()
        await self._backend.warm(programs, self.name)
        return report

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: bytes, milliseconds, passes, texts and tokens."""
        plans = [p.program for p in self._prepared.values()]
        return {
            "planned_nbytes": self._planned_nbytes,
            "naive_nbytes": sum(p.naive_nbytes for p in plans),
            "passes": self._counts.passes,
            "texts": self._counts.texts,
            "tokens": self._counts.tokens,
            "embed_ms": 1e3 * self._counts.embed_s,
            "host_ms": 1e3 * self._counts.host_s,
            "memory_retries": self._counts.memory_retries,
            **self.device_stats,
        }

    def _fit_to(self, fitting: Fitting, reason: str) -> None:
        super()._fit_to(fitting, reason)
        self._most_rows = self._settings.most_rows(fitting.limits)

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

    async def __aenter__(self) -> EmbeddingModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _embedded(
        self, batch: Batch, ids: Sequence[Sequence[int]], skipped: int
    ) -> memoryview[float]:
        """The embeddings of a batch (B * C,) float32, by smaller batches where memory ends."""
        backend = self.backend
        try:
            return await self._run(batch, ids, skipped)
        except DEVICE_ERRORS as lost:
            await self.revive(lost, backend)
        except NO_MEMORY:
            self._counts.memory_retries += 1
            self.trim()
            parts = smaller(batch, [len(i) for i in ids], self.max_tokens, self._most_rows)
            if parts:
                rows = [(await self._embedded(part, ids, skipped)).cast("B") for part in parts]
                return memoryview(b"".join(rows)).cast("f")
        return await self._run(batch, ids, skipped)

    async def _run(
        self, batch: Batch, ids: Sequence[Sequence[int]], skipped: int = 0
    ) -> memoryview[float]:
        prepared = await self._executable(batch.bucket)
        started = perf_counter()
        count, tokens = len(batch.indices), batch.tokens
        padded, lengths = array("I"), array("I")
        for index in batch.indices:
            lengths.append(len(ids[index]))
            padded.extend(ids[index])
            padded.frombytes(bytes(4 * (tokens - len(ids[index]))))
        inputs = {"ids": shaped(padded, "u32", (count, tokens)), "lengths": memoryview(lengths)}
        if skips_prompts(self._settings.modules):
            inputs["skipped"] = memoryview(array("I", [skipped] * count))
        width = prepared.program.outputs[0].limits[-1]  # of which `dimension` are wanted
        embeddings = memoryview(bytearray(4 * count * width)).cast("f")
        before = prepared.executable.host_s
        self._counts.host_s += perf_counter() - started
        prepared.running += 1
        try:
            await prepared.executable.run({"B": count, "T": tokens}, inputs, [embeddings])
        finally:
            prepared.running -= 1
        self._counts.host_s += prepared.executable.host_s - before
        self._counts.passes += 1
        if width > self.dimension:
            kept = (embeddings[row * width :][: self.dimension] for row in range(count))
            embeddings = memoryview(b"".join(row.cast("B") for row in kept)).cast("f")
        if not all_finite(embeddings):
            columns = self.dimension
            rows = (embeddings[row * columns : (row + 1) * columns] for row in range(count))
            broken = [not all_finite(row) for row in rows]
            text = batch.indices[broken.index(True)]
            raise NotFiniteError(self.name, f"the embedding of text {text}", self.tier)
        return embeddings

    async def _executable(self, bucket: Bucket) -> _Prepared:
        async with self._preparing.turn():
            found = self._prepared.pop(bucket, None)
            if found is not None and found.stale and not found.running:
                found.executable.close()
                found = None
            if found is None:
                self._drop_old_buckets()
                program = self._fitting.fit(self._settings.program(bucket))
                executable = await self._backend.prepare(program, self.weights)
                found = _Prepared(executable, program)
            self._prepared[bucket] = found  # last in the dict: most recently used
            return found

    def _prepare_anew(self) -> None:
        """Idle buckets go at once, those that run once they are asked for again and idle."""
        for bucket, prepared in list(self._prepared.items()):
            prepared.stale = True
            if not prepared.running:
                self._prepared.pop(bucket).executable.close()

    def _drop_old_buckets(self) -> None:
        idle = [b for b, p in self._prepared.items() if not p.running]
        for bucket in idle[: max(0, len(self._prepared) - _KEPT_BUCKETS + 1)]:
            self._prepared.pop(bucket).executable.close()


def _checked_texts(texts: object) -> list[str]:
    found = strings("embed, texts", texts)
    for index, text in enumerate(found):
        check_unicode(text, f"embed, text {index}")
    return found
