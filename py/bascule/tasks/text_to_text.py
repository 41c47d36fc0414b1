"""A loaded text-to-text model: a source in, streamed text out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Unpack, overload

from bascule.backend.base import Executable, shaped
from bascule.base.arguments import strings, token_ids, whole_number
from bascule.base.arrays import Array, all_finite, need_numpy, np, numpy_ready
from bascule.errors import ContextLengthError, InputError, NotFiniteError
from bascule.models.text_to_text.graph import CROSS_LAST
from bascule.program.ops.sampling import NOT_A_TOKEN
from bascule.tasks.generating import (
    DEVICES_IN_VAIN,
    GeneratingModel,
    Generation,
    GenerationBuilder,
    TextStream,
    whole_text,
)
from bascule.tasks.generation import GenerationStats
from bascule.tasks.kv_cache import PAGE, KvCache, whole_pages
from bascule.tasks.loaded import DEVICE_ERRORS, NO_MEMORY, Placement
from bascule.tasks.options import GenerationRequest, StreamOptions, read_options
from bascule.tasks.sampler import GREEDY, Sampling
from bascule.tasks.text_to_text_programs import Transformer, TransformPrograms
from bascule.tasks.text_to_text_rows import MAX_ROWS, next_token
from bascule.text.sentence_pieces import PieceTokenizer
from bascule.text.streaming import Detokeniser

_CHOICES = {"sampling", *(field.name for field in fields(Sampling))}


@dataclass(frozen=True, slots=True)
class TextToTextSettings:
    """The settings of a model's files."""

    transformer: Transformer
    tokenizer: PieceTokenizer


class TextToTextModel(GeneratingModel[TransformPrograms]):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory.

    One generation, or one list of them, runs at a time; others wait. Most such models expect their
    task before the text: "summarize: ...", "translate English to German: ...".
    """

    def __init__(self, placement: Placement, settings: TextToTextSettings) -> None:
        super().__init__(placement, settings.tokenizer)
        self.tokenizer = settings.tokenizer
        self._transformer = settings.transformer
        self.max_length = settings.transformer.max_length
        self.vocabulary = settings.transformer.config.vocabulary
        self._allocate_early()

    def _allocate_early(self) -> None:
        transformer, slots = self._transformer, self._transformer.slots
        self._cache = KvCache(
            self._backend,
            transformer.states(self._fitting),
            {},
            slots=PAGE,
            limit=slots,
            sizes={"X": min(PAGE, slots)},
        )
        self._programs = TransformPrograms(
            self._backend, transformer, self.weights, self._cache.states, self._fitting
        )

    def stream(self, text: str, **options: Unpack[StreamOptions]) -> TextStream:
        """Answer a text piece by piece, greedily unless `sampling` says otherwise.

        Options and errors as `LanguageModel.stream`, except `overflow`, which may only be "error".
        ContextLengthError for a text of more than `max_length` tokens; the answer ends there, too.
        """
        result, request = self._request(text, options)
        return TextStream(result, self._pieces(result, request, self._detokeniser()))

    @overload
    async def generate(
        self, texts: str, *, batch_size: int | None = None, **options: Unpack[StreamOptions]
    ) -> Generation: ...
    @overload
    async def generate(
        self,
        texts: Iterable[str],
        *,
        batch_size: int | None = None,
        **options: Unpack[StreamOptions],
    ) -> list[Generation]: ...
    async def generate(
        self,
        texts: str | Iterable[str],
        *,
        batch_size: int | None = None,
        **options: Unpack[StreamOptions],
    ) -> Generation | list[Generation]:
        """Answer a text, or each of several, to the end; options and errors as `stream`.

        Several are answered `batch_size` at a time (default and maximum 8), with one pass per step
        over all of them. Without numpy, or if memory runs out, one after the other. `seed` and
        `progress` apply to each text.
        """
        max_batch = MAX_ROWS
        if batch_size is not None:
            max_batch = min(max_batch, whole_number("batch_size", batch_size, 1))
        if isinstance(texts, str):
            return await whole_text(self.stream(texts, **options))
        requests = [self._request(text, options) for text in strings("generate, texts", texts)]
        together = max_batch if len(requests) > 1 and max_batch > 1 and await numpy_ready() else 1
        for first in range(0, len(requests), together):
            some = requests[first : first + together]
            if len(some) > 1:
                await self._answer_all(some)
            else:
                ((result, request),) = some
                await whole_text(
                    TextStream(result, self._pieces(result, request, self._detokeniser()))
                )
        return [result for result, _ in requests]

    def _request(self, text: str, options: StreamOptions) -> tuple[Generation, GenerationRequest]:
        """Check a text and its options."""
        self._check_open("generate")
        chosen = any(options.get(name) is not None for name in _CHOICES)
        request = read_options(options if chosen else {**options, "sampling": GREEDY})
        if request.slide:
            raise InputError("overflow", "'error'", "'slide', and no context slides here")
        return Generation(self._source_ids(text)), request

    def _detokeniser(self) -> Detokeniser:
        return Detokeniser(self.tokenizer, start=True)

    async def encode(self, text: str) -> Array:
        """Return the encoder states (T, C) float32 of a text; errors as `stream`."""
        self._check_open("encode")
        await need_numpy("encode()", "Load numpy into this Pyodide.")
        ids = self._source_ids(text)
        async with self._alone():
            with self._while_open():
                self._renew()
                executable = await self._programs.source(len(ids), states=True)
                sizes, inputs = await self._source_inputs(ids)
                (states,) = (await executable.run(sizes, inputs)).values()
        return states[0]

    async def logits(self, text: str, target_ids: Iterable[int]) -> Array:
        """Return the logits (N, V) float32 after the start and each of N - 1 target tokens."""
        self._check_open("logits")
        await need_numpy("logits()", "Load numpy into this Pyodide.")
        ids = self._source_ids(text)
        target = [self._transformer.config.start]
        target += token_ids("target_ids", target_ids, self.vocabulary)
        if len(target) > self.max_length:
            raise ContextLengthError(len(target), self.max_length)
        rows: list[Array] = []
        async with self._alone():
            with self._while_open():
                self._renew()
                await self._read_source(ids)
                await self._cache.reserve(len(target), slide=False)
                executable = await self._programs.target("logits")
                for at, token in enumerate(target):
                    self._place(at, token)
                    (row,) = (await executable.run(self._cache.sizes, {})).values()
                    if not all_finite(memoryview(np.ascontiguousarray(row).reshape(-1))):
                        raise NotFiniteError(self.name, f"a logit of token {at}", self.tier)
                    rows.append(row[0].copy())
        return np.stack(rows)

    def _source_ids(self, text: str) -> list[int]:
        (checked,) = strings("text", text)
        ids = self.tokenizer.encode(checked)
        if len(ids) > self.max_length:
            raise ContextLengthError(len(ids), self.max_length)
        return ids

    async def _source_inputs(self, ids: list[int]) -> tuple[dict[str, int], dict[str, Any]]:
        """Make room for a source; return the sizes and inputs of its pass."""
        await self._cache.grow("X", whole_pages(len(ids)))
        inputs = {
            "ids": shaped(array("I", ids), "u32", (1, len(ids))),
            "lengths": memoryview(array("I", [len(ids)])),
        }
        return {**self._cache.sizes, "T": len(ids)}, inputs

    async def _read_source(self, ids: list[int]) -> None:
        """Fill the cross-attention's caches."""
        self._cache.forget()
        executable = await self._programs.source(len(ids))
        sizes, inputs = await self._source_inputs(ids)
        self._cache.states.write(CROSS_LAST, 0, array("I", [len(ids) - 1]))
        await executable.submit(sizes, inputs)

    def _place(self, at: int, token: int) -> None:
        self._cache.write_tokens(at, [token])
        self._cache.set_position(at, 1)

    async def _read(
        self, result: Generation, request: GenerationRequest, stats: GenerationStats
    ) -> tuple[Executable, int, int]:
        cache = self._cache
        await self._read_source(result.prompt_ids)
        if request.progress is not None:
            request.progress(len(result.prompt_ids), len(result.prompt_ids))
        ids = [self._transformer.config.start, *result.ids]
        await cache.reserve(len(ids), slide=False)
        executable = await self._programs.target(request.sampling.head)
        for at, token in enumerate(ids[:-1]):  # those that another device gave
            self._place(at, token)
            await executable.submit(cache.sizes, {})
        cache.ids[:] = ids[:-1]
        return executable, ids[-1], self.max_length - len(ids)

    async def _answer_all(self, requests: Sequence[tuple[Generation, GenerationRequest]]) -> None:
        """Answer several texts at once."""
        writings = [GenerationBuilder(*each, self._detokeniser(), self._ends) for each in requests]
        async with self._turn.turn():
            self._check_open("generate")
            began = self._crossings
            try:
                await self._answered(writings)
            finally:
                crossings = (self._crossings - began) // len(writings)
                for builder in writings:
                    self._note(builder.result, builder.end(crossings))

    async def _answered(self, writings: Sequence[GenerationBuilder]) -> None:
        """Answer texts; if the device is lost, continue after the tokens given; if memory runs out,
        one text after the other.
        """
        in_vain = 0
        while True:
            n_before, backend = _n_tokens(writings), self.backend
            try:
                await self._answered_here(writings)
                return
            except DEVICE_ERRORS as lost:
                in_vain = 0 if _n_tokens(writings) > n_before else in_vain + 1
                if in_vain > DEVICES_IN_VAIN:
                    raise
                await self.revive(lost, backend)
            except NO_MEMORY:
                self._free_memory()
                break
        for builder in writings:
            if not builder.result.stop_reason:
                async for _ in self._written(builder):
                    pass

    async def _answered_here(self, writings: Sequence[GenerationBuilder]) -> None:
        """Answer texts on this device; all unfinished targets have the same number of tokens."""
        start = self._transformer.config.start
        async with self._device.turn():
            with self._while_open():
                self._renew()
                sources = [builder.result.prompt_ids for builder in writings]
                passes = await self._programs.rows(sources)
                await passes.read_sources(sources)
        for builder in writings:
            n_tokens = len(builder.result.prompt_ids)
            if builder.request.progress is not None and not builder.result.ids:
                builder.request.progress(n_tokens, n_tokens)
        at = 0
        while any(not builder.result.stop_reason for builder in writings):
            await self._pause_under_pressure()
            targets = [[start, *builder.result.ids] for builder in writings]
            tokens = [target[at] if at < len(target) else start for target in targets]
            async with self._device.turn():
                with self._while_open():
                    rows = await passes.step(at, tokens)
            at += 1
            for builder, target, logits in zip(writings, targets, rows, strict=True):
                if at == len(target) and not builder.result.stop_reason:
                    self._take(builder, next_token(logits, target, builder.request), at)

    def _take(self, builder: GenerationBuilder, token: int, at: int) -> None:
        """Add the token at that position; NotFiniteError if its logits are not finite."""
        if token == NOT_A_TOKEN:
            raise NotFiniteError(self.name, f"a logit after token {at - 1}", self.tier)
        result, max_new_tokens = builder.result, builder.request.max_new_tokens
        builder.push(token)
        if not result.stop_reason and len(result.ids) == min(max_new_tokens, self.max_length - 1):
            result.stop_reason = "length" if len(result.ids) == max_new_tokens else "context"
        if result.stop_reason:
            builder.rest()

    async def _prepare(self) -> None:
        """Prepare the programs of a first generation."""
        self._renew()
        await self._programs.source(1)
        await self._programs.target(GREEDY.head)

    def _prepare_anew(self) -> None:
        self._programs.close()


def _n_tokens(writings: Iterable[GenerationBuilder]) -> int:
    return sum(len(builder.result.ids) for builder in writings)
