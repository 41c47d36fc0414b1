"""The front door: `load` for models, `UnifiedWebPlatform` for one object that does it all."""

# pyright: reportPrivateUsage=false
# `load` puts a model together, and uses what is nobody else's to use.
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from os import PathLike
from time import perf_counter
from typing import Any, Literal, TypedDict, Unpack, overload

from bascule.backend.arrivals import Arrivals
from bascule.errors import (
    FileMissingError,
    InputError,
    ModelFileError,
    UnsupportedModelError,
    WrongResultError,
)
from bascule.model.classifier import ClassifierModel
from bascule.model.embedder import EmbeddingModel
from bascule.model.language import LanguageModel
from bascule.model.loaded import LoadedModel, Reopened
from bascule.model.registry import known_hashes, known_kind, locate, missing_in_page
from bascule.models.decoder.graph import CacheDType
from bascule.program.parameters import all_parameters
from bascule.program.program import Program
from bascule.program.rewrites.registry import fit_all
from bascule.program.rewrites.rewrite import Limits
from bascule.progress import Progress, ProgressCallback
from bascule.proving import ModelProver, is_wanted, prove_kernels_of
from bascule.recipes import Recipe, read_recipe
from bascule.shared_load import SharedLoad
from bascule.tiers.auto import TierOpener, need_of, open_tier
from bascule.tiers.capabilities import capabilities
from bascule.tiers.features import has_feature
from bascule.tiers.openers import IN_PAGE, OpenedTier
from bascule.tiers.pressure import open_pressure
from bascule.tiers.reopening import open_another, reopen_tier
from bascule.tiers.switches import warn_of_unknown_names
from bascule.waiting import all_or_first_error, sync
from bascule.weights.quantised import QuantizationReport, format_of
from bascule.weights.recorded import RecordedSource
from bascule.weights.source import CHUNK_NBYTES, MODEL_GGUF, Source, open_source, split_location


class _LoadOptions(TypedDict, total=False):
    """The options of `load`, for its overloads."""

    tier: str | Sequence[str]
    progress: ProgressCallback | None
    on: OpenedTier | None
    wait: bool
    chunk_size_mb: float
    parallel: bool
    max_length: int | None
    cache_dtype: CacheDType
    quantize: int | str | None
    opener: TierOpener | None
    fallbacks: bool
    prove: bool | None


@overload
async def load(
    model: Literal["all-MiniLM-L6-v2"], **options: Unpack[_LoadOptions]
) -> EmbeddingModel: ...
@overload
async def load(
    model: Literal["SmolLM2-135M-Instruct"], **options: Unpack[_LoadOptions]
) -> LanguageModel: ...
@overload
async def load(
    model: str | PathLike[str], **options: Unpack[_LoadOptions]
) -> EmbeddingModel | ClassifierModel | LanguageModel: ...
async def load(
    model: str | PathLike[str],
    *,
    tier: str | Sequence[str] = "auto",
    progress: ProgressCallback | None = None,
    on: OpenedTier | None = None,
    wait: bool = True,
    chunk_size_mb: float = CHUNK_NBYTES / (1 << 20),
    parallel: bool = False,
    max_length: int | None = None,
    cache_dtype: CacheDType = "f16",
    quantize: int | str | None = None,
    opener: TierOpener | None = None,
    fallbacks: bool = True,
    prove: bool | None = None,
) -> EmbeddingModel | ClassifierModel | LanguageModel:
    """Load a model: an EmbeddingModel, a ClassifierModel or a LanguageModel, by its files.

    `model` is a known name ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"), a folder or the URL of
    one, or the path or URL of a .gguf file. A folder is Hugging Face style with config.json (of a
    model type in `bascule.models.table`), tokenizer.json and model.safetensors (or its shards), or
    has a model.gguf.
    `tier` is "webgpu", "webgpu-limited" (the same without optional features, in the limits that
    every device has), "wasm", "cpu" or "auto": the one of those that work and can hold the model
    that is predicted to be fastest, from what was measured on this machine; of several names it is
    the first that works. Files from a server are kept for the next time, by chunks of
    `chunk_size_mb` MiB, and an interrupted load goes on where it stopped. Models may share a
    device: `on` is what `bascule.open_tier` gave, stays open when the model closes, and keeps its
    compiled shaders; so does what a host's own `opener` gives in place of `bascule.open_tier`.
    Without `wait` the model is given back before its weights are there: a pass runs each layer as
    soon as it can, and `await model.loaded()` waits for the rest. With `parallel` two shards come
    at a time. A language model's context is `max_length` tokens, by default all that it was trained
    for, and its KV cache holds halves or, as `cache_dtype` "f32", floats. With `quantize` (4, 8,
    "q4_0", "q4_1" or "q8_0") float weights become blocks of so many bits on their way (a language
    model's embedding and output of 8 at the least), and `model.quantization` tells what that did to
    each; `parallel` has no effect then. What computes wrongly here (a kernel, halves, for "auto" a
    tier) is found out and left unless `prove` is False (see `bascule.proving`); `model.proof`
    tells. What the device cannot hold as it is is cut (`model.fallbacks` tells) unless `fallbacks`
    is False. Cancelling the task frees everything. Raises InputError, ModelNotFoundError,
    ModelFileError, UnsupportedModelError, SourceError, TierUnavailableError, WrongResultError, or
    LimitError for a model that is too large for the device however it is cut.
    """
    warn_of_unknown_names()
    clock = _Clock()
    tell = clock.lapping(progress or _silent)
    weights = format_of(quantize)
    source, file = _open(model, round(chunk_size_mb * (1 << 20)))
    opened, store, made = on, None, None
    owns = on is None and opener is None
    try:
        try:
            recipe = await read_recipe(
                source,
                file,
                tell,
                max_length=max_length,
                cache_dtype=cache_dtype,
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
        tell(Progress("device", 0, 1, "steps"))
        opened = on or await (opener or open_tier)(tier, need_of(str(model), programs))
        tell(Progress("device", 1, 1, "steps"))
        clock.lap("device_ms")
        fitting, programs = fit_all(programs, opened.backend.limits if fallbacks else Limits())
        parameters = all_parameters(programs)
        async with opened.backend.turns.turn():
            store = opened.backend.store(parameters)
            store.arrivals = Arrivals(parameter.name for parameter in parameters)
            made = recipe.make(
                str(model),
                opened,
                store,
                fitting=fitting,
                owns_backend=owns,
                on_close=source.release,
            )
        fill = partial(recipe.fill, source, parameters, store, tell)
        fill = partial(fill, backend=opened.backend, parallel=parallel)
        proves = is_wanted(prove)
        if opened.watch is not None:
            made._watch_by(opened.watch.note)
        made._revive_by(partial(_reopen, made, recipe, source, tier, proves, fallbacks))
        if proves:
            prove_kernels_of(opened.backend)
            made._prove_by(ModelProver(str(model), programs, weights))
        if IN_PAGE:  # natively the system's scheduler shares the machine
            made.yield_to(await open_pressure())
        made._follow(_warm_and_fill(made, opened, source, fill, programs, tell, clock))
        if wait:
            await made.loaded()
    except BaseException as error:
        if isinstance(error, ModelFileError) and not IN_PAGE and known_hashes(str(model)):
            error.advise_pull(str(model))
        # What was kept in the cache stays.
        if made is not None:
            made.close()
        elif opened is not None:
            if store is not None:
                store.close()
            if owns:
                opened.backend.close()
        await source.settle()
        source.release()
        raise
    return made


async def read_programs(model: str | PathLike[str]) -> list[Program]:
    """The passes that a model will most likely run, without its weights; raises as `load` does."""
    source, file = _open(model)
    try:
        return (await read_recipe(source, file, _silent)).programs()
    finally:
        await source.settle()
        source.release()


def _open(
    model: str | PathLike[str], chunk_nbytes: int = CHUNK_NBYTES
) -> tuple[RecordedSource, str | None]:
    """A model's source, and its file where it is one file."""
    folder, file = split_location(locate(str(model)))
    if file is None and known_kind(str(model)) == "language-model":
        file = MODEL_GGUF
    source = open_source(folder, hashes=known_hashes(str(model)), chunk_nbytes=chunk_nbytes)
    return RecordedSource(source), file


async def _reopen(
    made: LoadedModel,
    recipe: Recipe,
    source: Source,
    tier: str | Sequence[str],
    proves: bool,
    fallbacks: bool,
) -> Reopened:
    """Another device for a model that has lost its own, or left it for wrong numbers, with the
    weights from the cache in it.
    """
    programs = recipe.programs()
    need = need_of(made.name, programs)
    if made.lost:
        opened = await reopen_tier(tier, made.tier, made.lost, need)
    else:
        opened = await open_another(tier, made.wrong_tiers, need)
    if proves:
        prove_kernels_of(opened.backend)
    backend = opened.backend
    try:
        fitting, programs = fit_all(programs, backend.limits if fallbacks else Limits())
        parameters = all_parameters(programs)
        store = backend.store(parameters)
        await recipe.fill(source, parameters, store, _silent, backend=backend, parallel=False)
    except BaseException:
        backend.close()
        raise
    finally:
        await source.settle()
    return Reopened(backend, store, opened.reason, fitting)


async def _warm_and_fill(
    made: LoadedModel,
    opened: OpenedTier,
    source: RecordedSource,
    fill: Callable[[], Coroutine[Any, Any, QuantizationReport | None]],
    programs: list[Program],
    tell: ProgressCallback,
    clock: _Clock,
) -> None:
    """Compile pipelines while the weights stream in."""

    async def warm() -> None:
        tell(Progress("pipelines", 0, 1, "pipelines"))
        ready = 1
        try:
            ready = await opened.backend.warm(programs, made.name)
        except WrongResultError as wrong:
            if not (wrong.halves and made._without_halves(wrong.found)):
                raise
        tell(Progress("pipelines", ready, ready, "pipelines"))
        await made._prepare()

    async def filled() -> None:
        made.quantization = await fill()
        clock.lap("weights_ms")

    try:
        async with opened.backend.turns.turn():
            await all_or_first_error([filled(), warm()])
        clock.lap("prepare_ms")
        await made.prove()
        clock.lap("prove_ms")
        made.files = source.files
    finally:
        await source.settle()
        for name, number in (*clock.laps.items(), *source.stats.items()):
            made.note(name, number)
        made.note("load_ms", sum(clock.laps.values()))
    tell(Progress("ready", 1, 1, "steps"))


class _Clock:
    """Milliseconds between laps, by name."""

    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def lapping(self, progress: ProgressCallback) -> ProgressCallback:
        """`progress`, by whose stages the tokenizer's time is told from that of other settings."""

        def tell(told: Progress) -> None:
            if told.stage == "tokenizer":
                self.lap("tokenizer_ms" if told.done else "config_ms")
            progress(told)

        return tell


def _silent(_: Progress) -> None:
    """No listener."""


class UnifiedWebPlatform:
    """One object for a model on whatever tier works: load, run, hear of progress.

    `model_type` is "text" (a sentence encoder) or "text_generation" (a language model). `platform`
    is a tier or "auto"; where a named one does not work, those that `fallback_to_webnn` and
    `fallback_to_wasm` allow are tried. `on` is one that is open already, and stays so; with
    `quantize` float weights become blocks of fewer bits (for all of these see `load`). Every method
    that waits returns an awaitable; `load_model`, `run_inference` and `test_feature_support` run to
    the end where no event loop runs (a plain script), and return their result itself.
    """

    def __init__(
        self,
        model_name: str,
        model_type: str = "text",
        platform: str = "auto",
        *,
        on: OpenedTier | None = None,
        quantize: int | str | None = None,
        fallback_to_webnn: bool = False,
        fallback_to_wasm: bool = False,
    ) -> None:
        if model_type not in _MODEL_TYPES:
            told = f"model_type {model_type!r}, and this version runs {sorted(_MODEL_TYPES)}"
            raise UnsupportedModelError(model_name, told)
        self.model_name = model_name
        self.model_type = model_type
        self.platform = platform
        self.quantize = quantize
        self.fallback_to_webnn = fallback_to_webnn
        self.fallback_to_wasm = fallback_to_wasm
        self._on = on
        self._fallbacks = True
        self._listeners: list[Callable[[str, float], None]] = []
        self._loading: SharedLoad[EmbeddingModel | LanguageModel] = SharedLoad()

    @property
    def model(self) -> EmbeddingModel | LanguageModel | None:
        """The loaded model."""
        return self._loading.model

    def on_progress(self, callback: Callable[[str, float], None]) -> None:
        """Call `callback(stage, percent)` while a model loads."""
        self._listeners.append(callback)

    def load_model(self) -> Any:
        """Load the model (or an awaitable of it); a second call gives the same one."""
        return _now_or_later(self._loaded())

    def run_inference(
        self, inputs: Mapping[str, Any]
    ) -> Awaitable[dict[str, Any]] | dict[str, Any]:
        """Embed or answer `inputs["input_text"]`; loads the model first if need be.

        For "text" that is a string or a list of strings, and the result holds `embeddings` (n, C)
        float32. For "text_generation" it is one user's turn, further inputs are options of
        `LanguageModel.stream`, and the result holds `text`, `ids`, `stop_reason` and `stats`. Both
        have `tier`, `tier_reason`, `device`, `model` and `ms`.
        """
        return _now_or_later(self._infer(inputs))

    def enable_feature_fallbacks(self, enabled: bool = True) -> None:
        """Whether a model that is loaded from now on may be cut to what the device can hold."""
        self._fallbacks = bool(enabled)

    def test_feature_support(self, feature: str) -> Awaitable[bool] | bool:
        """Whether this machine has a feature: see `bascule.tiers.features.FEATURES` for the names.

        InputError for another name.
        """
        return _now_or_later(_feature(feature))

    def close(self) -> None:
        """Free the model; a load that is under way ends with an InputError."""
        self._loading.close()

    def _tiers(self) -> str | list[str]:
        """What `load` is to take."""
        if self.platform == "auto":
            return "auto"
        allowed = {"webnn": self.fallback_to_webnn, "wasm": self.fallback_to_wasm}
        others = [tier for tier, on in allowed.items() if on and tier != self.platform]
        return [self.platform, *others] if others else self.platform

    async def _loaded(self) -> EmbeddingModel | LanguageModel:
        return await self._loading.get(self._load)

    async def _load(self) -> EmbeddingModel | LanguageModel:
        model = await load(
            self.model_name,
            tier=self._tiers(),
            progress=self._tell,
            on=self._on,
            quantize=self.quantize,
            fallbacks=self._fallbacks,
        )
        if not isinstance(model, _MODEL_TYPES[self.model_type]):
            model.close()
            told = f"it is a {type(model).__name__}, and model_type is {self.model_type!r}"
            raise UnsupportedModelError(self.model_name, told)
        return model

    async def _infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if "input_text" not in inputs:
            raise InputError("run_inference", "a mapping with 'input_text'", str(sorted(inputs)))
        model = await self._loaded()
        started = perf_counter()
        if isinstance(model, EmbeddingModel):
            found: dict[str, Any] = {"embeddings": await model.embed(inputs["input_text"])}
        else:
            options = {name: value for name, value in inputs.items() if name != "input_text"}
            made = await model.chat([{"role": "user", "content": inputs["input_text"]}], **options)
            found = {
                "text": made.text,
                "ids": made.ids,
                "stop_reason": made.stop_reason,
                "stats": made.stats,
            }
        return {
            **found,
            "tier": model.tier,
            "tier_reason": model.tier_reason,
            "device": model.device_name,
            "model": self.model_name,
            "ms": 1e3 * (perf_counter() - started),
        }

    def _tell(self, progress: Progress) -> None:
        for callback in self._listeners:
            callback(progress.stage, 100 * progress.fraction)


_MODEL_TYPES: Mapping[str, type[EmbeddingModel] | type[LanguageModel]] = {
    "text": EmbeddingModel,
    "text_generation": LanguageModel,
}


async def _feature(name: str) -> bool:
    return has_feature(await capabilities(), name)


def _now_or_later(work: Any) -> Any:
    """Run `work` to its end where no event loop runs; hand it back where one does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return sync(work)
    return work
