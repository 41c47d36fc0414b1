"""A loaded language model: text in, streamed text out."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from math import nan
from typing import Any, Unpack

from bascule.backend.base import Executable
from bascule.base.arguments import token_ids
from bascule.base.arrays import Array, all_finite, need_numpy, np
from bascule.errors import (
    ContextLengthError,
    InputError,
    NotFiniteError,
    UnsupportedModelError,
)
from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import CacheDType
from bascule.program.program import Program
from bascule.tasks.generating import GeneratingModel, Generation, TextStream, whole_text
from bascule.tasks.generation import GenerationStats, Pace, decode, prefill
from bascule.tasks.kv_cache import N_ANGLES, PAGE, KvCache, rotary_states
from bascule.tasks.language_graph import Decoder
from bascule.tasks.language_programs import (
    PREFILL_LENGTHS,
    LanguagePrograms,
    all_states,
    max_slots,
)
from bascule.tasks.loaded import DEVICE_ERRORS, NO_MEMORY, Placement
from bascule.tasks.options import GenerationRequest, StreamOptions, read_options
from bascule.tasks.proof import Sample
from bascule.tasks.sampler import GREEDY, Sampling
from bascule.text.chat import ChatTemplate
from bascule.text.language import LanguageTokenizer
from bascule.text.messages import plain_messages
from bascule.text.streaming import Detokeniser


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """The settings of a model's files."""

    decoder: Decoder
    tokenizer: LanguageTokenizer
    template: ChatTemplate | None

    @property
    def config(self) -> DecoderConfig:
        """The decoder's config."""
        return self.decoder.config


class LanguageModel(GeneratingModel[LanguagePrograms]):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory.

    One generation runs at a time; others wait. The prefix that a prompt shares with the previous
    text (the turns of a chat) is not computed again.
    """

    def __init__(
        self,
        placement: Placement,
        settings: LanguageSettings,
        *,
        max_length: int | None = None,
        cache_dtype: CacheDType = "f16",
    ) -> None:
        super().__init__(placement, settings.tokenizer)
        config = settings.config
        if max_length is not None and not 2 <= max_length <= config.context:
            raise InputError("max_length", f"2 to {config.context:,} tokens", f"{max_length}")
        self.max_length = max_length or config.context
        self.tokenizer = settings.tokenizer
        self.vocabulary = config.vocabulary
        self._template = settings.template
        self._settings = settings
        self._cache_dtype = cache_dtype
        self._allocate_early()

    def _allocate_early(self) -> None:
        decoder, length, dtype = self._settings.decoder, self.max_length, self._cache_dtype
        initial = rotary_states(decoder.config)
        self._cache = KvCache(
            self._backend,
            all_states(decoder, length, dtype, self._fitting),
            initial,
            slots=PAGE,
            limit=max_slots(length),
            sizes={"A": N_ANGLES},
        )
        self._programs = LanguagePrograms(
            self._backend, decoder, self.weights, self._cache.states, length, dtype, self._fitting
        )

    def _limit_chunks(self, n_tokens: int) -> None:
        """Read prompts in passes of at most that many tokens."""
        self._programs.longest = n_tokens

    def _holds(self, n_tokens: int) -> bool:
        return n_tokens < self.max_length

    def _sample_programs(self, sample: Sample) -> list[Program]:
        return self._programs.of_sample(len(sample.ids))

    async def _answer(self, sample: Sample) -> list[float]:
        """Return the logits after a sample's ids; all NaN if the next token differs."""
        ids = list(sample.ids)
        last = (await self._logits(ids, None))[-self._settings.config.vocabulary :]
        logits = [last[token] for token in sample.at]
        # One decode step: its kernels differ from those for many tokens.
        del self._cache.ids[-1:]
        executable = await self._programs.decode(GREEDY.head, window=False)
        steps = decode(
            self._cache,
            executable,
            ids[-1],
            settings=GREEDY.pack(),
            max_tokens=1,
            slide=False,
            pace=Pace(1, 1),
            pause=self._pause_under_pressure,
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
        """Whether the model has a chat template."""
        return self._template is not None

    def chat_ids(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        """Render a conversation by the model's template, up to the start of its answer."""
        if self._template is None:
            raise UnsupportedModelError(self.name, "its file has no chat template")
        return self._template.encode(plain_messages(messages))

    def stream(self, prompt: str | Iterable[int], **options: Unpack[StreamOptions]) -> TextStream:
        """Continue `prompt`, a text or token ids, piece by piece.

        Ends after `max_new_tokens` (256), at the model's own end, before one of the `stop` strings,
        or when the context is full; with `overflow` "slide" the oldest tokens are dropped instead
        of "error". `sampling`, a `Sampling` or a dict of its settings, samples by default
        (temperature 0.7); the settings may also be passed directly (`temperature=0`), and OpenAI's
        `max_tokens` in place of `max_new_tokens`. `progress(done, total)` counts the prompt's
        tokens. `steps_in_flight` (8) tokens are queued before the first of them is read.
        ContextLengthError for a prompt that does not fit, InputError for an empty one and for
        invalid options. The stream raises NotFiniteError instead of tokens from logits that are not
        finite. If memory runs out, caches are freed and smaller chunks tried; GpuOutOfMemoryError
        or MemoryError if that is not enough.
        """
        self._check_open("generate")
        return self._stream(self._prompt_ids(prompt), options)

    def _stream(
        self, ids: list[int], options: StreamOptions, *, answers: bool = False
    ) -> TextStream:
        """Continue tokens; with `answers` the output is a text of its own."""
        request = read_options(options)
        if request.slide and not self._settings.config.rotary:
            problem = f"'slide', and the model knows {self._settings.config.context:,} positions"
            raise InputError("overflow", "'error'", problem)
        if len(ids) >= self.max_length and not request.slide:
            raise ContextLengthError(len(ids) + 1, self.max_length)
        result = Generation(ids)
        start = answers or not self.tokenizer.decode_bytes(ids)
        text = Detokeniser(self.tokenizer, start=start)
        return TextStream(result, self._pieces(result, request, text))

    async def generate(
        self, prompt: str | Iterable[int], **options: Unpack[StreamOptions]
    ) -> Generation:
        """Continue `prompt` to the end; options and errors as `stream`."""
        return await whole_text(self.stream(prompt, **options))

    def stream_chat(
        self, messages: Sequence[Mapping[str, object]], **options: Unpack[StreamOptions]
    ) -> TextStream:
        """Answer messages {"role": ..., "content": ...}; options and errors as `stream`.

        Content is a text, a list of text parts as in OpenAI's API, or None.
        """
        self._check_open("generate")
        ids = self._checked_ids("prompt", self.chat_ids(messages))
        return self._stream(ids, options, answers=True)

    async def chat(
        self, messages: Sequence[Mapping[str, object]], **options: Unpack[StreamOptions]
    ) -> Generation:
        """Answer a conversation to the end; options and errors as `stream_chat`."""
        return await whole_text(self.stream_chat(messages, **options))

    async def logits(
        self, ids: Iterable[int], *, progress: Callable[[int, int], None] | None = None
    ) -> Array:
        """Return the logits (T, V) float32 after each token. Drops the previous text."""
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
                    self._free_memory()
                    self._programs.take_less()
                return self._rows(await self._logits(checked, progress))

    def _rows(self, logits: memoryview[float]) -> Array:
        return np.asarray(logits).reshape(-1, self._settings.config.vocabulary)

    async def _logits(
        self, ids: list[int], progress: Callable[[int, int], None] | None
    ) -> memoryview[float]:
        """Return logits (T * V,) float32; drops the previous text."""
        vocabulary = self._settings.config.vocabulary
        result = memoryview(bytearray(4 * len(ids) * vocabulary)).cast("f")
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
            logits = result[start * vocabulary : (start + len(chunk)) * vocabulary]
            sizes = {**cache.sizes, "T": len(chunk)}
            await executable.run(sizes, {}, [logits])
            if not all_finite(logits):
                cache.forget()
                where = f"a logit of tokens {start} to {start + len(chunk) - 1}"
                raise NotFiniteError(self.name, where, self.tier)
            cache.ids.extend(chunk)
            if progress is not None:
                progress(len(cache.ids), len(ids))
        return result

    async def _prepare(self) -> None:
        """Prepare the programs of a first generation."""
        self._renew()
        await self._programs.prefill(PREFILL_LENGTHS[-1], window=False)
        for sampling in (GREEDY, Sampling()):
            await self._programs.decode(sampling.head, window=False)

    async def _read(
        self, result: Generation, request: GenerationRequest, stats: GenerationStats
    ) -> tuple[Executable, int, int]:
        """See `GeneratingModel._read`: prefill, after what the cache already has."""
        cache, ids = self._cache, [*result.prompt_ids, *result.ids]
        reused = cache.keep_prefix(ids)
        stats.reused_tokens = stats.reused_tokens if result.ids else reused

        async def chunked(n_remaining: int) -> Any:
            return await self._programs.prefill(n_remaining, window=request.slide)

        new = ids[len(cache.ids) : -1]
        done, slide = self._backend.done, request.slide
        await prefill(cache, chunked, new, done=done, slide=slide, progress=request.progress)
        room = request.max_new_tokens if slide else self.max_length - len(ids)
        return await self._programs.decode(request.sampling.head, window=slide), ids[-1], room

    def _prompt_ids(self, prompt: str | Iterable[int]) -> list[int]:
        if isinstance(prompt, str):
            vocabulary = self.tokenizer.vocabulary
            begin = [vocabulary.bos] if vocabulary.adds_bos and vocabulary.bos is not None else []
            prompt = [*begin, *self.tokenizer.encode(str(prompt), special=True)]
        return self._checked_ids("prompt", prompt)

    def _checked_ids(self, where: str, ids: Iterable[int]) -> list[int]:
        result = token_ids(where, ids, self.vocabulary)
        if not result:
            raise InputError(where, "at least one token", "none")
        return result
