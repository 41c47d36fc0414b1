"""The strategies that keep a model within a budget, and the memory of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod

from bascule.backend.base import Backend
from bascule.backend.memory import PassBytes
from bascule.base.dtypes import nbytes_of
from bascule.errors import UnsupportedModelError
from bascule.program.parameters import all_parameters
from bascule.program.rewrites.registry import LimitFitter, fit_all
from bascule.program.stages import part_nbytes, slot_nbytes
from bascule.recipes.language import LanguageRecipe
from bascule.recipes.reading import Recipe
from bascule.recipes.tables import EncoderFolderRecipe
from bascule.tasks.batched import BatchSettings, PassLimits, max_rows
from bascule.tasks.buckets import Bucket, all_buckets
from bascule.tasks.kv_cache import N_ANGLES, PAGE
from bascule.tasks.language_programs import (
    PREFILL_LENGTHS,
    all_states,
    essential_programs,
    max_slots,
)
from bascule.tasks.proof import FEWER_BITS
from bascule.weights.quantized import format_of, quantizing_nbytes

# What other kernels, for passes of other sizes, may change: relative to the RMS of the answer, as
# in `tasks/proof.py`.
_OTHER_KERNELS = 1e-3
_AS_STORED, STREAMED = "as stored", "streamed"
# Reads that wait for a stage of streamed weights: a few of 4 bytes.
_STAGES_NBYTES = 1024
# A strategy that needs more than this share of a cheaper one is left out.
_MIN_GAIN = 0.98
# Small reads of a language model: tokens.
_TOKENS_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class MemoryStrategy:
    """A way to store a model, and its cost.

    `weights` is "as stored", "f16", "q8_0", "q4_1" or "streamed" (as stored, and read again for
    each pass, a layer at a time); `passes` are the limits of a pass. `context_length` is that of a
    language model's KV cache. `needed_nbytes` is the most that the device will hold, from the
    memory plans of its programs. `deviation` bounds that of answers, relative to their RMS;
    measured on known models, not proven. `peak_nbytes` by the driver's count, `seconds` of a run
    and `measured_deviation` from the first strategy are None until `WebGPUMemoryOptimizer.measure`
    has measured them on this device.
    """

    weights: str
    passes: str
    needed_nbytes: int
    deviation: float
    context_length: int | None = None
    peak_nbytes: int | None = None
    seconds: float | None = None
    measured_deviation: float | None = None
    limits: PassLimits = field(default_factory=PassLimits, repr=False)

    @property
    def name(self) -> str:
        """The strategy in words."""
        context = f", a context of {self.context_length:,}" if self.context_length else ""
        return f"weights {self.weights}, {self.passes}{context}"

    @property
    def quantize(self) -> str | None:
        """The argument of `load` for these weights."""
        return None if self.weights in (_AS_STORED, STREAMED) else self.weights


def strategies_of(
    recipe: Recipe,
    backend: Backend,
    quantize: str | None,
    *,
    chunk_nbytes: int,
    shortest_context: int | None,
    streamed: bool = False,
) -> Iterator[MemoryStrategy]:
    """Yield the strategies with weights in that format, or streamed, cheapest first.

    UnsupportedModelError for models that are neither batched encoders nor language models.
    """
    programs, limits = recipe.programs(), backend.limits
    if streamed:
        limits = replace(limits, part_nbytes=part_nbytes(programs))
    fitting, programs = fit_all(programs, limits)
    parameters = all_parameters(programs)
    weights = sum(p.nbytes for p in parameters if not streamed or p.computed is not None)
    if streamed:  # two stages at a time
        weights += 2 * slot_nbytes(programs) + _STAGES_NBYTES
    loading = quantizing_nbytes(parameters, chunk_nbytes) if quantize else 0
    if isinstance(recipe, EncoderFolderRecipe):
        ways = _batched(recipe.settings, backend, fitting)
    elif isinstance(recipe, LanguageRecipe):
        ways = _language(recipe, backend, fitting, shortest_context)
    else:
        problem = "memory is planned for encoders, classifiers and language models alone"
        raise UnsupportedModelError(type(recipe).__name__, problem)
    stored = format_of(quantize)
    smallest: int | None = None
    for way in ways:
        needed = weights + max(loading, way.nbytes)
        if smallest is not None and needed > _MIN_GAIN * smallest:
            continue  # it costs more, and saves next to nothing
        smallest = needed
        yield MemoryStrategy(
            STREAMED if streamed else quantize or _AS_STORED,
            way.passes,
            needed,
            _OTHER_KERNELS + (FEWER_BITS[stored] if stored else 0.0),
            way.context_length,
            limits=way.limits,
        )


@dataclass(frozen=True, slots=True)
class _Way:
    passes: str
    nbytes: int  # beside the weights
    context_length: int | None = None
    limits: PassLimits = field(default_factory=PassLimits)


def _batched(settings: BatchSettings, backend: Backend, fitting: LimitFitter) -> Iterator[_Way]:
    plain, rows = PassLimits(), max_rows(settings, fitting.limits)

    @cache
    def of_bucket(bucket: Bucket) -> PassBytes:
        # Empty if the device cannot hold it.
        programs = fitting.fit_possible([settings.program(bucket)])
        return backend.pass_nbytes(programs[0]) if programs else PassBytes()

    def max_nbytes(limits: PassLimits) -> int:
        buckets = all_buckets(settings.max_tokens, min(rows, limits.rows))
        return _max_nbytes([of_bucket(bucket) for bucket in buckets], limits)

    yield _Way("resident", max_nbytes(plain), limits=plain)
    one = PassLimits(in_flight=1, kept=1)
    yield _Way("freed between passes", max_nbytes(one), limits=one)
    while rows > settings.max_tokens:
        rows = max(rows // 2, settings.max_tokens)
        fewer = replace(one, rows=rows)
        yield _Way(f"freed between passes of {rows:,} rows", max_nbytes(fewer), limits=fewer)


def _max_nbytes(passes: Sequence[PassBytes], limits: PassLimits) -> int:
    """Return the most bytes that any run of these passes holds at a time."""
    held = sorted((each.held for each in passes), reverse=True)
    proving = sum(held[: limits.kept - 1]) + max(each.trials for each in passes)
    read = limits.in_flight * max(each.read for each in passes)
    return max(sum(held[: limits.kept]), proving) + read


def _language(
    recipe: LanguageRecipe, backend: Backend, fitting: LimitFitter, shortest: int | None
) -> Iterator[_Way]:
    decoder, cache = recipe.settings.decoder, recipe.options.cache
    length = recipe.options.max_length or decoder.config.context
    while True:
        sizes = {"S": max_slots(length), "A": N_ANGLES}
        values = all_states(decoder, length, cache, fitting)
        states = [nbytes_of(value.dtype, prod(value.sizes(sizes))) for value in values]
        # A cache grows state by state, the old one beside the new one.
        growing = max(states) if sizes["S"] > PAGE else 0
        programs = [fitting.fit(p) for p in essential_programs(decoder, length, cache)]
        argmax, sample, *prefill = [backend.pass_nbytes(program) for program in programs]
        for count in range(len(prefill), 0, -1):
            used = (argmax, sample, sample, *prefill[:count])  # twice: with penalties
            working = sum(each.held for each in used) + max(each.trials for each in used)
            tokens = PREFILL_LENGTHS[count - 1]
            words = "resident" if count == len(prefill) else f"prompts by {tokens} tokens"
            nbytes = sum(states) + growing + working + _TOKENS_NBYTES
            yield _Way(words, nbytes, length, PassLimits(rows=tokens))
        if shortest is None or length <= shortest:
            return
        length = max(length // 2, shortest)
