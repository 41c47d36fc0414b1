"""Load a model onto an open device, or onto one that the model opens and closes."""

# pyright: reportPrivateUsage=false
# `load` assembles a model from its private parts.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from time import perf_counter
from typing import Any, Literal, Unpack, overload

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import Backend, WeightStore
from bascule.backend.memory import MemoryBudget
from bascule.base.page_settings import IN_PAGE
from bascule.base.progress import Progress, ProgressCallback
from bascule.base.waiting import all_or_first_error
from bascule.choosing.auto import ModelNeed, need_of, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.choosing.reopening import open_another, reopen_tier
from bascule.choosing.switches import warn_of_unknown_names
from bascule.device.options import CHUNK_MB, LoadOptions, LoadSettings
from bascule.device.proving import ModelProver, is_wanted
from bascule.errors import (
    DeviceLostError,
    FileMissingError,
    InputError,
    ModelFileError,
    TierUnavailableError,
    WrongResultError,
)
from bascule.machine.pressure import open_pressure
from bascule.models.decoder.graph import CacheDType
from bascule.program.parameters import all_parameters
from bascule.program.program import Parameter, Program
from bascule.program.rewrites.registry import LimitFitter, fit_all
from bascule.program.rewrites.rewrite import Limits
from bascule.program.stages import part_nbytes, slot_nbytes
from bascule.recipes.filling import WeightFiller
from bascule.recipes.reading import Recipe, read_recipe
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.loaded import LoadedModel, Placement, ReopenedDevice
from bascule.tasks.models import AnyModel
from bascule.tasks.registry import known_hashes, known_kind, locate, missing_in_page
from bascule.tasks.speech import SpeechModel
from bascule.tasks.voice import VoiceActivityModel
from bascule.weights.location import open_source, split_location
from bascule.weights.names import MODEL_GGUF
from bascule.weights.quantized import QuantizationReport, format_of
from bascule.weights.recorded import RecordedSource
from bascule.weights.source import CHUNK_NBYTES, Source


@overload
async def load(
    model: Literal["all-MiniLM-L6-v2"], **options: Unpack[LoadOptions]
) -> EmbeddingModel: ...
@overload
async def load(
    model: Literal["SmolLM2-135M-Instruct"], **options: Unpack[LoadOptions]
) -> LanguageModel: ...
@overload
async def load(
    model: Literal["whisper-tiny.en", "whisper-base"], **options: Unpack[LoadOptions]
) -> SpeechModel: ...
@overload
async def load(
    model: Literal["silero-vad"], **options: Unpack[LoadOptions]
) -> VoiceActivityModel: ...
@overload
async def load(model: str | PathLike[str], **options: Unpack[LoadOptions]) -> AnyModel: ...
async def load(
    model: str | PathLike[str],
    *,
    tier: str | Sequence[str] = "auto",
    progress: ProgressCallback | None = None,
    wait: bool = True,
    chunk_size_mb: float = CHUNK_MB,
    parallel: bool = False,
    max_length: int | None = None,
    cache_dtype: CacheDType | None = None,
    quantize: int | str | None = None,
    fallbacks: bool = True,
    prove: bool | None = None,
    precompile: bool = True,
    stream_weights: bool = False,
) -> AnyModel:
    """Load a model: an Embedding-, Classifier-, Language- or SpeechModel, by its files.

    `model` is a known name ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct", "whisper-tiny.en",
    "whisper-base", "silero-vad"), a folder or its URL, or the path or URL of a .gguf file. A folder
    is Hugging Face style with config.json (of a model type in `bascule.models.table`),
    tokenizer.json and model.safetensors (or its shards), or has a model.gguf, a CTranslate2
    model.bin, or Silero's silero_vad_16k.safetensors.

    `tier` is "webgpu", "webgpu-limited" (the same without optional features, within the default
    limits), "webnn", "wasm", "cpu", "reference" (the cpu in float64) or "auto": of the tiers that
    work and can hold the model the one predicted to be fastest, from measurements on this machine;
    of several names it is the first that works. Files from a server are cached in chunks of
    `chunk_size_mb` MiB, and an interrupted load continues where it stopped. The model's device
    closes with it; models that share one are loaded by `Device.load`.

    Without `wait` the model is returned before its weights are loaded: a pass runs each layer as
    soon as it can, and `await model.loaded()` waits for the rest. With `parallel` two shards are
    fetched at a time. A language model's context is `max_length` tokens, by default all that it was
    trained for, and its KV cache (a speech model's, too) is float16, or float32 with `cache_dtype`
    "f32"; a text-to-text model's is float32, and "f16" is rejected.

    With `quantize` (4, 8, "q4_0", "q4_1" or "q8_0") float weights are quantized while they load (a
    language model's embedding and output to at least 8 bits; not for speech models), or become
    float16 with "f16", and `model.quantization` lists the errors of each; `parallel` has no effect
    then. A kernel, a float16 cache or (with "auto") a tier whose results are wrong here is replaced
    unless `prove` is False (`bascule.device.proving`); `model.proof` reports what was found. What
    the device cannot hold is cut (`model.fallbacks` lists it) unless `fallbacks` is False. Without
    `precompile` pipelines are compiled by the first pass that needs them, instead of during the
    load. With `stream_weights` only about a layer's weights are on the device at a time: each pass,
    and so each token of a language model, reads all of them again from the folder or the cache,
    never the network; not with `quantize`, and not on "webnn".

    Cancelling the task frees everything. Raises InputError, ModelNotFoundError, ModelFileError,
    UnsupportedModelError, SourceError, TierUnavailableError, WrongResultError, or LimitError for a
    model that is too large for the device however it is cut.
    """
    settings = LoadSettings(
        progress=progress,
        wait=wait,
        chunk_size_mb=chunk_size_mb,
        parallel=parallel,
        max_length=max_length,
        cache_dtype=cache_dtype,
        quantize=quantize,
        fallbacks=fallbacks,
        prove=prove,
        precompile=precompile,
        stream_weights=stream_weights,
    )
    return await load_alone(model, tier, settings)


async def load_alone(
    model: str | PathLike[str], tier: str | Sequence[str], settings: LoadSettings
) -> AnyModel:
    """Load a model onto a device that closes with it; errors as `load`."""
    return await load_model(model, tier, partial(open_tier, tier), settings, owns=True)


async def load_model(
    model: str | PathLike[str],
    tier: str | Sequence[str] | None,
    opener: Callable[[ModelNeed], Awaitable[OpenedTier]],
    settings: LoadSettings,
    *,
    owns: bool,
    on_close: Callable[[], None] | None = None,
) -> AnyModel:
    """Load a model onto what `opener` opens for its need; errors as `load`.

    A model that `owns` it closes it; `on_close` is called when the model has closed. `tier` is what
    may be opened if it fails; with None a DeviceLostError or WrongResultError ends the model's
    work.
    """
    warn_of_unknown_names()
    clock = _Clock()
    notify = clock.timed_progress(settings.progress or _silent)
    weights = format_of(settings.quantize)
    if settings.stream_weights and weights is not None:
        expected = "weights as the files have them with stream_weights"
        raise InputError("quantize", expected, repr(settings.quantize))
    source, file = open_files(
        model, round(settings.chunk_size_mb * (1 << 20)), revalidate=settings.revalidate
    )
    opened, store, loaded = None, None, None

    def closed() -> None:
        source.release()
        if on_close is not None:
            on_close()

    try:
        try:
            recipe = await read_recipe(
                source,
                file,
                notify,
                max_length=settings.max_length,
                cache_dtype=settings.cache_dtype,
                weights=weights,
                known_files=known_hashes(str(model)).keys(),
            )
        except FileMissingError as error:
            if IN_PAGE:
                raise missing_in_page(str(model), source.location, error) from None
            raise
        clock.lap("config_ms")
        programs = recipe.programs()
        clock.lap("programs_ms")
        notify(Progress("device", 0, 1, "steps"))
        opened = await opener(need_of(str(model), programs, streamed=settings.stream_weights))
        if settings.memory_nbytes is not None:
            opened.backend.limit_memory(MemoryBudget(settings.memory_nbytes))
        notify(Progress("device", 1, 1, "steps"))
        clock.lap("device_ms")
        fitting, programs = _fitted(programs, opened.backend, settings)
        parameters = all_parameters(programs)
        if proves := is_wanted(settings.prove):
            opened.backend.prove_kernels()
        async with opened.backend.turns.turn():
            store = _store(opened.backend, parameters, programs, settings)
            store.arrivals = Arrivals(parameter.name for parameter in parameters)
            placement = Placement(
                name=str(model),
                backend=opened.backend,
                weights=store,
                reason=opened.reason,
                fitting=fitting,
                owns_backend=owns,
                on_close=closed,
                reopen=partial(_reopen, recipe, source, tier, proves, settings),
                prover=ModelProver(str(model), programs, weights) if proves else None,
                watch=opened.watch.note if opened.watch is not None else None,
            )
            loaded = recipe.make(placement)
        filling = WeightFiller(source, parameters, store, opened.backend, notify, settings.parallel)
        fill = partial(recipe.fill, filling)
        if IN_PAGE:  # natively the system's scheduler shares the machine
            loaded.yield_to(await open_pressure())
        if not settings.precompile:
            programs = []
        loaded._start_loading(_warm_and_fill(loaded, opened, source, fill, programs, notify, clock))
        if settings.wait:
            await loaded.loaded()
    except BaseException as error:
        if isinstance(error, ModelFileError) and not IN_PAGE and known_hashes(str(model)):
            error.advise_pull(str(model))
        # What was cached stays.
        if loaded is not None:
            loaded.close()
        elif opened is not None:
            if store is not None:
                store.close()
            if owns:
                opened.backend.close()
        await source.settle()
        source.release()
        raise
    return loaded


async def read_programs(model: str | PathLike[str]) -> list[Program]:
    """Return the passes that a model most likely runs, without weights; raises as `load`."""
    return (await read_recipe_of(model)).programs()


async def read_recipe_of(model: str | PathLike[str], quantize: int | str | None = None) -> Recipe:
    """Read a model's recipe without its weights; arguments and errors as `load`."""
    source, file = open_files(model)
    try:
        return await read_recipe(
            source,
            file,
            _silent,
            weights=format_of(quantize),
            known_files=known_hashes(str(model)).keys(),
        )
    finally:
        await source.settle()
        source.release()


def open_files(
    model: str | PathLike[str], chunk_nbytes: int = CHUNK_NBYTES, *, revalidate: bool = True
) -> tuple[RecordedSource, str | None]:
    """Return a model's source, and its file if it is one; `revalidate` as in `open_source`."""
    folder, file = split_location(locate(str(model)))
    if file is None and known_kind(str(model)) == "language-model":
        file = MODEL_GGUF
    source = open_source(
        folder,
        hashes=known_hashes(str(model)),
        chunk_nbytes=chunk_nbytes,
        revalidate=revalidate,
    )
    return RecordedSource(source), file


async def _reopen(
    recipe: Recipe,
    source: Source,
    tier: str | Sequence[str] | None,
    proves: bool,
    settings: LoadSettings,
    model: LoadedModel,
) -> ReopenedDevice:
    """Open another device, with the weights from the cache, for a model whose device was lost or
    rejected for wrong numbers.
    """
    if tier is None:
        if model.lost:
            raise DeviceLostError(model.lost)
        raise TierUnavailableError(model.tier, f"{model.name} may not use another device")
    programs = recipe.programs()
    need = need_of(model.name, programs, streamed=settings.stream_weights)
    if model.lost:
        opened = await reopen_tier(tier, model.tier, model.lost, need)
    else:
        opened = await open_another(tier, model.wrong_tiers, need)
    if proves:
        opened.backend.prove_kernels()
    backend = opened.backend
    if settings.memory_nbytes is not None:
        backend.limit_memory(MemoryBudget(settings.memory_nbytes))
    try:
        fitting, programs = _fitted(programs, backend, settings)
        parameters = all_parameters(programs)
        store = _store(backend, parameters, programs, settings)
        await recipe.fill(WeightFiller(source, parameters, store, backend, _silent))
    except BaseException:
        backend.close()
        raise
    finally:
        await source.settle()
    return ReopenedDevice(backend, store, opened.reason, fitting)


def _fitted(
    programs: Sequence[Program], backend: Backend, settings: LoadSettings
) -> tuple[LimitFitter, list[Program]]:
    """Fit the programs to the limits of the device and, if weights are streamed, of a stage."""
    limits = backend.limits if settings.fallbacks else Limits()
    if settings.stream_weights:
        limits = replace(limits, part_nbytes=part_nbytes(programs))
    return fit_all(programs, limits)


def _store(
    backend: Backend,
    parameters: Sequence[Parameter],
    programs: Sequence[Program],
    settings: LoadSettings,
) -> WeightStore:
    if settings.stream_weights:
        return backend.streamed_store(parameters, slot_nbytes(programs))
    return backend.store(parameters)


async def _warm_and_fill(
    model: LoadedModel,
    opened: OpenedTier,
    source: RecordedSource,
    fill: Callable[[], Coroutine[Any, Any, QuantizationReport | None]],
    programs: list[Program],
    notify: ProgressCallback,
    clock: _Clock,
) -> None:
    """Compile the pipelines of `programs`, if any, while the weights stream in."""

    async def warm() -> None:
        notify(Progress("pipelines", 0, 1, "pipelines"))
        ready = 1
        try:
            if programs:
                ready = await opened.backend.warm(programs, model.name)
        except WrongResultError as wrong:
            if not (wrong.f16_cache and model._without_f16_cache(wrong.found)):
                raise
        notify(Progress("pipelines", ready, ready, "pipelines"))
        if programs:
            await model._prepare()

    async def filled() -> None:
        model.quantization = await fill()
        clock.lap("weights_ms")

    try:
        async with opened.backend.turns.turn():
            await all_or_first_error([filled(), warm()])
        clock.lap("prepare_ms")
        await model.prove()
        clock.lap("prove_ms")
        model.files = source.files
    finally:
        await source.settle()
        for name, number in (*clock.laps.items(), *source.stats.items()):
            model.note(name, number)
        model.note("load_ms", sum(clock.laps.values()))
    notify(Progress("ready", 1, 1, "steps"))


class _Clock:
    """Milliseconds between laps, by name."""

    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def timed_progress(self, progress: ProgressCallback) -> ProgressCallback:
        """Wrap `progress`, and tell the tokenizer's time from the config's by its stages."""

        def notify(step: Progress) -> None:
            if step.stage == "tokenizer":
                self.lap("tokenizer_ms" if step.done else "config_ms")
            progress(step)

        return notify


def _silent(_: Progress) -> None:
    """Ignore progress."""
