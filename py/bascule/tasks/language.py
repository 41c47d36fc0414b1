"""A language model ready for use: text in, text out as it comes."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from math import nan
from time import perf_counter
from typing import Any, Literal, Unpack

from bascule.backend.base import Backend, WeightStore
from bascule.backend.tiers import tier_info
from bascule.backend.tuning import TuneReport
from bascule.base.arguments import token_ids
from bascule.base.arrays import Array, all_finite, need_numpy, np
from bascule.base.progress import ProgressCallback
from bascule.base.turns import CrossLoopLock
from bascule.errors import (
    ContextLengthError,
    InputError,
    NotFiniteError,
    UnsupportedModelError,
)
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import CacheDType
from bascule.program.ops.sampling import NOT_A_TOKEN
from bascule.program.program import Program
from bascule.program.rewrites.registry import Fitting
from bascule.tasks.generation import GenerationStats, Pace, decode, prefill
from bascule.tasks.kv_cache import PAGE, KvCache
from bascule.tasks.language_graph import Decoder
from bascule.tasks.language_programs import (
    PREFILL_LENGTHS,
    LanguagePrograms,
    all_states,
    most_slots,
)
from bascule.tasks.loaded import DEVICE_ERRORS, NO_MEMORY, LoadedModel, ModelRun, Reopened
from bascule.tasks.options import Asked, StreamOptions, read_options
from bascule.tasks.proof import Sample
from bascule.tasks.sampler import GREEDY, Sampling
from bascule.text.chat import ChatTemplate
from bascule.text.language import TextTokenizer
from bascule.text.messages import plain_messages
from bascule.text.streaming import Detokeniser, StopStrings

StopReason = Literal["end", "stop", "length", "context", ""]

# Tries after memory has ended without a token: with caches freed, then with smaller chunks, too.
_TRIES_WITH_LESS = 2
# Devices that may be lost one after the other without a token: then the work itself kills them.
_DEVICES_IN_VAIN = 2


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """What a model's files say beside the weights."""

    decoder: Decoder
    tokenizer: TextTokenizer
    template: ChatTemplate | None

    @property
    def config(self) -> DecoderConfig:
        """The decoder's sizes."""
        return self.decoder.config


@dataclass(slots=True)
class Generation:
    """A text that was generated. `stop_reason`: "end" the model was done, "stop" a stop string
    came, "length" the tokens asked for are there, "context" no more fit.
    """

    prompt_ids: list[int]
    text: str = ""
    ids: list[int] = field(default_factory=list[int])
    stop_reason: StopReason = ""
    stats: dict[str, float] = field(default_factory=dict[str, float])


class TextStream:
    """Pieces of text as they come: `async for piece in stream`. `result` grows with them.

    Leaving the loop early does not end the work; `await stream.aclose()` or `async with` does.
    """

    def __init__(self, result: Generation, pieces: AsyncGenerator[str]) -> None:
        self.result = result
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def aclose(self) -> None:
        """End the generation, and free the model for the next one."""
        await self._pieces.aclose()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class LanguageModel(LoadedModel):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory.

    One generation runs at a time; others wait for their turn. What a prompt has in common with
    the text before it (the turns of a chat) is not computed again.
    """

    def __init__(
        self,
        name: str,
        settings: LanguageSettings,
        backend: Backend,
        weights: WeightStore,
        *,
        tier_reason: str,
        fitting: Fitting | None = None,
        owns_backend: bool = True,
        on_close: Callable[[], None] | None = None,
        max_length: int | None = None,
        cache_dtype: CacheDType = "f16",
    ) -> None:
        super().__init__(
            name,
            backend,
            weights,
            tier_reason=tier_reason,
            fitting=fitting,
            owns_backend=owns_backend,
            on_close=on_close,
        )
        config = settings.config
        if max_length is not None and not 2 <= max_length <= config.context:
            raise InputError("max_length", f"2 to {config.context:,} tokens", f"{max_length}")
        self.max_length = max_length or config.context
        self.tokenizer = settings.tokenizer
        self.vocabulary = config.vocabulary
        self._template = settings.template
        self._settings = settings
        self._cache_dtype: CacheDType = cache_dtype
        self._settle_in()
        self._turn = CrossLoopLock()
        self._earlier_crossings = 0  # of devices that were lost
        self._totals = {"prompt_tokens": 0.0, "new_tokens": 0.0, "generations": 0.0}
        self._totals["memory_retries"] = 0.0

    def _settle_in(self) -> None:
        """Take a cache and programs on the backend."""
        decoder, length, dtype = self._settings.decoder, self.max_length, self._cache_dtype
        self._cache = KvCache(
            self._backend,
            decoder.config,
            all_states(decoder, length, dtype, self._fitting),
            slots=PAGE,
            limit=most_slots(length),
        )
        self._programs = LanguagePrograms(
            self._backend, decoder, self.weights, self._cache.states, length, dtype, self._fitting
        )

    def _move(self, reopened: Reopened) -> None:
        self._earlier_crossings = self._crossings
        super()._move(reopened)
        self._settle_in()

    @property
    def has_halves(self) -> bool:
        """See `LoadedModel.has_halves`: the KV cache."""
        return self._cache_dtype == "f16"

    def _without_halves(self, why: str) -> bool:
        """See `LoadedModel._without_halves`. What stood in the cache is computed again."""
        if not self.has_halves:
            return False
        self._close_programs()
        self._cache_dtype = "f32"
        self._settle_in()
        self._note_steps([f"a KV cache of halves was left for one of floats: {why}"])
        return True

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """See `LoadedModel._alone`. Between two generations: it takes the cache."""
        async with self._turn.turn(), self._device.turn():
            yield

    def _prepare_anew(self) -> None:
        """See `LoadedModel._prepare_anew`. The cache stays."""
        self._programs.close()

    def _holds(self, n_tokens: int) -> bool:
        """See `LoadedModel._holds`."""
        return n_tokens < self.max_length

    def _sample_programs(self, sample: Sample) -> list[Program]:
        """See `LoadedModel._sample_programs`."""
        return self._programs.of_sample(len(sample.ids))

    async def _answer(self, sample: Sample) -> list[float]:
        """The logits after a sample's ids; all NaN where another token comes next."""
        ids = list(sample.ids)
        last = (await self._logits(ids, None))[-self._settings.config.vocabulary :]
        logits = [last[token] for token in sample.at]
        # One step of decoding: its kernels are others than those for many tokens.
        del self._cache.ids[-1:]
        executable = await self._programs.decode(GREEDY.head, window=False)
        steps = decode(
            self._cache,
            executable,
            ids[-1],
            settings=GREEDY.pack(),
            most=1,
            slide=False,
            pace=Pace(1, 1),
            rest=self._rest,
            stats=GenerationStats(prompt_tokens=len(ids)),
        )
        async with aclosing(steps):
            async for token in steps:
                if token != sample.at[0]:
                    logits = [nan] * len(logits)
        self._cache.ids.clear()
        self._cache.written = 0
        self._programs.close("logits")  # few ask for them, and they are large
        return logits

    @property
    def can_chat(self) -> bool:
        """Whether the file has a chat template."""
        return self._template is not None

    def chat_ids(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        """A conversation as the model's own template has it, up to where its answer begins."""
        if self._template is None:
            raise UnsupportedModelError(self.name, "its file has no chat template")
        return self._template.encode(plain_messages(messages))

    def stream(self, prompt: str | Iterable[int], **options: Unpack[StreamOptions]) -> TextStream:
        """Continue `prompt`, a text or token ids, piece by piece.

        Ends after `max_new_tokens` (256), at the model's own end, before one of the `stop` strings,
        or where the context is full; with `overflow` "slide" the oldest tokens give way instead of
        "error". `sampling`, a `Sampling` or a dict of its settings, draws by default (temperature
        0.7); the settings may stand beside the other options, too (`temperature=0`), and OpenAI's
        `max_tokens` for `max_new_tokens`. `progress(done, total)` counts the prompt's tokens.
        `steps_in_flight` (8) tokens are under way before the first of them is read.
        ContextLengthError for a prompt that does not fit, InputError for an empty one and for
        options of another kind. The stream raises NotFiniteError instead of tokens that mean
        nothing. Where memory ends, caches are freed and smaller chunks tried; GpuOutOfMemoryError
        or MemoryError if that is not enough.
        """
        self._check_open("generate")
        return self._stream(self._prompt_ids(prompt), options)

    def _stream(
        self, ids: list[int], options: StreamOptions, *, answers: bool = False
    ) -> TextStream:
        """Continue tokens; with `answers` what comes is a text of its own, not the prompt's."""
        asked = read_options(options)
        if asked.slide and not self._settings.config.rotary:
            found = f"'slide', and the model knows {self._settings.config.context:,} positions"
            raise InputError("overflow", "'error'", found)
        if len(ids) >= self.max_length and not asked.slide:
            raise ContextLengthError(len(ids) + 1, self.max_length)
        result = Generation(ids)
        start = answers or not self.tokenizer.decode_bytes(ids)
        text = Detokeniser(self.tokenizer, start=start)
        return TextStream(result, self._pieces(result, asked, text))

    async def generate(
        self, prompt: str | Iterable[int], **options: Unpack[StreamOptions]
    ) -> Generation:
        """Continue `prompt` to the end; options and errors as `stream`."""
        return await _whole(self.stream(prompt, **options))

    def stream_chat(
        self, messages: Sequence[Mapping[str, object]], **options: Unpack[StreamOptions]
    ) -> TextStream:
        """Answer messages {"role": ..., "content": ...}; options and errors as `stream`.

        Content is a text, a list of OpenAI's parts of text, or None.
        """
        self._check_open("generate")
        ids = self._checked_ids("prompt", self.chat_ids(messages))
        return self._stream(ids, options, answers=True)

    async def chat(
        self, messages: Sequence[Mapping[str, object]], **options: Unpack[StreamOptions]
    ) -> Generation:
        """Answer a conversation to the end; options and errors as `stream_chat`."""
        return await _whole(self.stream_chat(messages, **options))

    async def logits(
        self, ids: Iterable[int], *, progress: Callable[[int, int], None] | None = None
    ) -> Array:
        """The logits (T, V) float32 that follow each of these tokens. Forgets the text before."""
        self._check_open("logits")
        await need_numpy("logits()", "Load numpy into this Pyodide.")
        checked = self._checked_ids("ids", ids)
        if len(checked) > self.max_length:
            raise ContextLengthError(len(checked), self.max_length)
        async with self._alone():
            with self._while_open():
                backend = self.backend
                try:
                    return self._rows(await self._logits(checked, progress))
                except DEVICE_ERRORS as lost:
                    await self.revive(lost, backend)
                except NO_MEMORY:
                    self._relieve()
                    self._programs.take_less()
                return self._rows(await self._logits(checked, progress))

    def _rows(self, logits: memoryview[float]) -> Array:
        return np.asarray(logits).reshape(-1, self._settings.config.vocabulary)

    async def _logits(
        self, ids: list[int], progress: Callable[[int, int], None] | None
    ) -> memoryview[float]:
        """Logits (T * V,) float32; forgets the text before."""
        vocabulary = self._settings.config.vocabulary
        found = memoryview(bytearray(4 * len(ids) * vocabulary)).cast("f")
        self._renew()
        cache = self._cache
        cache.forget()
        await cache.reserve(len(ids), slide=False)
        while len(cache.ids) < len(ids):
            start = len(cache.ids)
            limit, executable = await self._programs.logits(len(ids) - start)
            chunk = ids[start : start + limit]
            cache.write_tokens(start, chunk)
            cache.set_position(start, len(chunk))
            logits = found[start * vocabulary : (start + len(chunk)) * vocabulary]
            sizes = {**cache.sizes, "T": len(chunk)}
            await executable.run(sizes, {}, [logits])
            if not all_finite(logits):
                cache.forget()
                where = f"a logit of tokens {start} to {start + len(chunk) - 1}"
                raise NotFiniteError(self.name, where, self.tier)
            cache.ids.extend(chunk)
            if progress is not None:
                progress(len(cache.ids), len(ids))
        return found

    async def _prepare(self) -> None:
        """Make the programs of a first generation ready before it is asked for."""
        self._renew()
        await self._programs.prefill(PREFILL_LENGTHS[-1], window=False)
        for sampling in (GREEDY, Sampling()):
            await self._programs.decode(sampling.head, window=False)

    async def tune(
        self, budget_s: float = 30.0, *, progress: ProgressCallback | None = None
    ) -> TuneReport:
        """Measure on this device which kernels are fastest for this model; they serve from then on.

        What is measured is remembered for the next load. Cancelling keeps what is finished.
        """
        self._check_open("tune")
        programs = self._programs.essential()
        async with self._alone():
            with self._while_open():
                try:
                    report = await self._backend.tune(
                        programs, budget_s=budget_s, progress=progress
                    )
                finally:
                    self._programs.close()
                await self._backend.warm(programs, self.name)
        return report

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load."""
        found = {"cache_nbytes": self._cache.states.nbytes, "cache_slots": self._cache.slots}
        return {**found, **self._totals, **self.device_stats}

    async def _pieces(
        self, result: Generation, asked: Asked, text: Detokeniser
    ) -> AsyncGenerator[str]:
        """The pieces of one generation; `result` is whole when they end."""
        called = perf_counter()
        stats = GenerationStats(prompt_tokens=len(result.prompt_ids))
        stop = StopStrings(asked.stop)
        async with self._turn.turn():
            self._check_open("generate")
            began = self._crossings
            tokens = self._by_turns(self._tokens(result, asked, stats))
            try:
                async for token in tokens:
                    now = perf_counter()
                    stats.first_token_s = stats.first_token_s or now - called
                    stats.new_tokens += 1
                    stats.decode_s = now - called - stats.first_token_s
                    if token in self.tokenizer.vocabulary.ends:
                        result.stop_reason = "end"
                        break
                    result.ids.append(token)
                    piece = stop.push(text.push(token))
                    result.text += piece
                    if piece:
                        yield piece
                    if stop.stopped is not None:
                        result.stop_reason = "stop"
                        break
                left = "" if result.stop_reason == "stop" else stop.push(text.flush())
                left += stop.flush()
                result.text += left
                if left:
                    yield left
            finally:
                await tokens.aclose()
                stats.total_s = perf_counter() - called
                stats.crossings = self._crossings - began - stats.prompt_crossings
                self._note(result, stats)

    async def _by_turns(self, tokens: AsyncGenerator[int]) -> AsyncGenerator[int]:
        """The same tokens; the device is held while the next one is made, not between two."""
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
                    if not self._closed:  # else the step has said so, or nobody asks any more
                        raise

    async def _tokens(
        self, result: Generation, asked: Asked, stats: GenerationStats
    ) -> AsyncGenerator[int]:
        """The new tokens. Should the device be lost, or memory end, the next one goes on behind
        those given.
        """
        in_vain = 0
        while True:
            given, backend = len(result.ids), self.backend
            tokens = self._tokens_here(result, asked, stats)
            try:
                async for token in tokens:
                    yield token
                return
            except DEVICE_ERRORS as lost:
                in_vain = 0 if len(result.ids) > given else in_vain + 1
                if in_vain > _DEVICES_IN_VAIN:
                    raise
                await self.revive(lost, backend)
            except NO_MEMORY:
                in_vain = 1 if len(result.ids) > given else in_vain + 1
                if in_vain > _TRIES_WITH_LESS:
                    raise
                self._relieve()
                if in_vain > 1:
                    self._programs.take_less()
            finally:
                await tokens.aclose()

    async def _tokens_here(
        self, result: Generation, asked: Asked, stats: GenerationStats
    ) -> AsyncGenerator[int]:
        """Prefill, then the new tokens."""
        self._renew()
        cache, crossings = self._cache, self._crossings
        given = len(result.ids)
        ids = [*result.prompt_ids, *result.ids]
        reused = cache.keep_prefix(ids)
        stats.reused_tokens = stats.reused_tokens if given else reused

        async def chunked(left: int) -> Any:
            return await self._programs.prefill(left, window=asked.slide)

        new = ids[len(cache.ids) : -1]
        await prefill(cache, chunked, new, slide=asked.slide, progress=asked.progress)
        stats.prompt_crossings += self._crossings - crossings
        most = asked.most - given
        room = most if asked.slide else min(most, self.max_length - len(ids))
        executable = await self._programs.decode(asked.sampling.head, window=asked.slide)
        tokens = decode(
            cache,
            executable,
            ids[-1],
            settings=asked.settings,
            most=room,
            slide=asked.slide,
            pace=self._pace(asked.steps_in_flight),
            rest=self._rest,
            stats=stats,
        )
        try:
            async for token in tokens:
                if token == NOT_A_TOKEN:
                    cache.forget()  # its keys and values may be what is broken
                    told = f"a logit behind token {len(ids) + len(result.ids) - given - 1}"
                    raise NotFiniteError(self.name, told, self.tier)
                yield token
            result.stop_reason = "length" if room == most else "context"
        finally:
            await tokens.aclose()

    def _note(self, result: Generation, stats: GenerationStats) -> None:
        stats.gpu_nbytes = int(self._backend.stats.get("gpu_nbytes", 0))
        if not self._closed:
            stats.cache_nbytes = self._cache.states.nbytes
        result.stats = stats.as_json()
        self._totals["prompt_tokens"] += stats.prompt_tokens
        self._totals["new_tokens"] += stats.new_tokens
        self._totals["generations"] += 1
        self._tell_of(
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

    def _prompt_ids(self, prompt: str | Iterable[int]) -> list[int]:
        if isinstance(prompt, str):
            vocabulary = self.tokenizer.vocabulary
            begin = [vocabulary.bos] if vocabulary.adds_bos and vocabulary.bos is not None else []
            prompt = [*begin, *self.tokenizer.encode(str(prompt), special=True)]
        return self._checked_ids("prompt", prompt)

    def _checked_ids(self, where: str, given: Iterable[int]) -> list[int]:
        found = token_ids(where, given, self.vocabulary)
        if not found:
            raise InputError(where, "at least one token", "none")
        return found

    def _close_programs(self) -> None:
        self._programs.close()
        self._cache.states.close()

    def _trim_programs(self) -> None:
        if not self._turn.locked():  # a generation uses them all
            self._close_programs()

    @property
    def _planned_nbytes(self) -> int:
        return self._programs.planned_nbytes + self._cache.states.nbytes

    def _relieve(self) -> None:
        """Memory has ended in a generation's middle: free all but the weights."""
        self._totals["memory_retries"] += 1
        self._close_programs()
        self._backend.trim()

    def _renew(self) -> None:
        """Take a cache again where it was given up for its memory."""
        if not self._cache.states.nbytes:
            longest = self._programs.longest
            self._settle_in()
            self._programs.longest = longest


async def _whole(stream: TextStream) -> Generation:
    async with stream:
        async for _ in stream:
            pass
    return stream.result
