"""Keep a model within a memory budget of its device."""

# pyright: reportPrivateUsage=false
# It limits what the passes of a loaded model hold.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from time import perf_counter
from typing import Any

from bascule.backend.base import Backend
from bascule.base.arguments import whole_number
from bascule.base.arrays import Array, np
from bascule.base.progress import ProgressCallback
from bascule.compat.memory_plan import STREAMED, MemoryStrategy, strategies_of
from bascule.device.device import open_device
from bascule.device.loading import load_alone, read_recipe_of
from bascule.device.options import CHUNK_MB, LoadSettings
from bascule.errors import (
    GpuOutOfMemoryError,
    InputError,
    LimitError,
    UnsupportedModelError,
)
from bascule.tasks.batched import BatchedModel
from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel

# Weights as stored, then in fewer bits.
_FORMATS: tuple[str | None, ...] = (None, "f16", "q8_0", "q4_1")
_NEW_TOKENS = 8


class WebGPUMemoryOptimizer:
    """Keeps a model within `budget_nbytes` of a WebGPU device of its own.

    It uses the first of its strategies that fits the budget: weights as stored, as float16, in
    blocks of 8 bits, of 4; and for each, intermediate values that stay for the next pass, that are
    freed between passes, and passes with fewer rows (for a language model: prompts in smaller
    chunks, and, down to `shortest_context` tokens if given, a shorter KV cache). The last one
    streams the stored weights: each pass reads them again, a layer at a time. The driver enforces
    the limit: no buffer is allocated beyond it, even if a pass needs more than planned; such a pass
    is divided, or rejected with GpuOutOfMemoryError. `chosen` is the strategy of the last load,
    `strategies` are all that it considered, `rejected` why some were rejected though they should
    have fit.
    """

    def __init__(
        self,
        budget_nbytes: int,
        *,
        tier: str = "webgpu",
        shortest_context: int | None = None,
        chunk_size_mb: float = CHUNK_MB,
    ) -> None:
        self.budget_nbytes = whole_number("budget_nbytes", budget_nbytes, 1)
        if tier not in ("webgpu", "webgpu-limited"):
            expected = '"webgpu" or "webgpu-limited", whose driver counts bytes'
            raise InputError("WebGPUMemoryOptimizer, tier", expected, repr(tier)[:80])
        if shortest_context is not None:
            whole_number("shortest_context", shortest_context, 2)
        self.tier = tier
        self.shortest_context = shortest_context
        self.chunk_size_mb = chunk_size_mb
        self.chosen: MemoryStrategy | None = None
        self.strategies: tuple[MemoryStrategy, ...] = ()
        self.rejected: dict[str, str] = {}

    async def plan(self, model: str | PathLike[str]) -> tuple[MemoryStrategy, ...]:
        """Return all strategies for a model, cheapest first; reads only its small files.

        Errors as `load`, but none if no strategy fits.
        """
        async with await open_device(self.tier) as device:
            self.strategies = tuple(await self._strategies(model, device.backend))
        return self.strategies

    async def load(
        self, model: str | PathLike[str], *, progress: ProgressCallback | None = None
    ) -> EmbeddingModel | ClassifierModel | LanguageModel:
        """Load a model by the first strategy that fits, onto a device that closes with it.

        If none fits, LimitError before a weight is read, with the bytes that the smallest strategy
        needs; UnsupportedModelError for other models than encoders, classifiers and language
        models; other errors as `bascule.load`.
        """
        self.chosen, self.rejected = None, {}
        every = await self.plan(model)
        for strategy in every:
            if strategy.needed_nbytes > self.budget_nbytes:
                continue
            try:
                loaded = await self._load(model, strategy, progress)
            except GpuOutOfMemoryError as error:
                self.rejected[strategy.name] = error.what
                continue
            self.chosen = strategy
            return loaded
        raise self._refusal(str(model), every)

    async def measure(
        self, model: str | PathLike[str], texts: Sequence[str]
    ) -> tuple[MemoryStrategy, ...]:
        """Return the strategies; those that fit the budget have measurements of a run of `texts`.

        Each of them is loaded, runs twice and is closed: the second run is timed. A language model
        continues the first text by 8 tokens.
        """
        first: Array | None = None
        measured: list[MemoryStrategy] = []
        for strategy in await self.plan(model):
            if strategy.needed_nbytes > self.budget_nbytes:
                measured.append(strategy)
                continue
            async with await self._load(model, strategy, None) as loaded:
                answer = await _answer(loaded, texts)
                began = perf_counter()
                await _answer(loaded, texts)
                seconds = perf_counter() - began
                peak = loaded.backend.memory.peak_nbytes
            first = answer if first is None else first
            deviation = _deviation(answer, first)
            measured.append(
                replace(strategy, peak_nbytes=peak, seconds=seconds, measured_deviation=deviation)
            )
        self.strategies = tuple(measured)
        return self.strategies

    async def _strategies(
        self, model: str | PathLike[str], backend: Backend
    ) -> list[MemoryStrategy]:
        results: list[MemoryStrategy] = []
        for quantize, streamed in (*((each, False) for each in _FORMATS), (None, True)):
            try:
                recipe = await read_recipe_of(model, quantize)
            except (InputError, UnsupportedModelError):
                if quantize is None:
                    raise
                continue  # weights in blocks already, or that lie column by column
            results += strategies_of(
                recipe,
                backend,
                quantize,
                chunk_nbytes=round(self.chunk_size_mb * (1 << 20)),
                shortest_context=self.shortest_context,
                streamed=streamed,
            )
        return results

    async def _load(
        self,
        model: str | PathLike[str],
        strategy: MemoryStrategy,
        progress: ProgressCallback | None,
    ) -> Any:
        settings = LoadSettings(
            progress=progress,
            chunk_size_mb=self.chunk_size_mb,
            max_length=strategy.context_length,
            quantize=strategy.quantize,
            precompile=False,  # else the first pass's buffers stand beside what quantizes
            memory_nbytes=self.budget_nbytes,
            stream_weights=strategy.weights == STREAMED,
        )
        loaded = await load_alone(model, self.tier, settings)
        if isinstance(loaded, BatchedModel):
            loaded._limit_passes(strategy.limits)
        elif isinstance(loaded, LanguageModel):
            loaded._limit_chunks(strategy.limits.rows)
        return loaded

    def _refusal(self, model: str, every: Sequence[MemoryStrategy]) -> LimitError:
        smallest = min(every, key=lambda strategy: strategy.needed_nbytes)
        needs = f"{smallest.needed_nbytes:,} bytes in its smallest strategy ({smallest.name})"
        allowed = f"{self.budget_nbytes:,} are allowed"
        if self.rejected:
            allowed += f"; {'; '.join(f'{name}: {why}' for name, why in self.rejected.items())}"
        hint = "Allow more, or use a smaller model."
        return LimitError(model, needs, allowed, hint=hint)


async def _answer(model: Any, texts: Sequence[str]) -> Array | None:
    """Return a model's answer for texts as numbers (N, C), if it has one."""
    if isinstance(model, EmbeddingModel):
        return await model.embed(list(texts))
    if isinstance(model, ClassifierModel):
        result = await model.classify(list(texts))
        return np.asarray([list(each.probabilities.values()) for each in result])
    await model.generate(texts[0], max_new_tokens=_NEW_TOKENS, temperature=0)
    return None


def _deviation(answer: Array | None, first: Array | None) -> float | None:
    """Return the largest deviation, relative to the RMS of the first answer."""
    if answer is None or first is None:
        return None
    scale = float(np.sqrt(np.mean(np.square(first)))) or 1.0
    return float(np.max(np.abs(answer - first))) / scale
