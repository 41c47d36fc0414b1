"""UnifiedWebPlatform: one object for a model on any working tier."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from time import perf_counter
from typing import Any

from bascule.backend.memory import MemoryKind, MemoryUse
from bascule.backend.profile import ShaderLog, by_name
from bascule.base.arguments import whole_number
from bascule.base.arrays import np
from bascule.base.progress import Progress
from bascule.base.waiting import sync
from bascule.choosing.auto import ModelNeed, open_tier
from bascule.choosing.openers import OpenDevice, OpenedTier, open_named
from bascule.compat.inference import MODEL_TYPES, PlatformModel, check_inputs, infer
from bascule.compat.shared_load import SharedLoad
from bascule.device.device import Device
from bascule.device.loading import load_model
from bascule.device.options import DeviceLoadOptions, LoadSettings
from bascule.errors import InputError, UnsupportedModelError
from bascule.machine.capabilities import capabilities
from bascule.machine.features import has_feature
from bascule.models.decoder.graph import CacheDType
from bascule.tasks.language import LanguageModel
from bascule.tasks.models import AnyModel

_Watcher = tuple[Callable[[OpenDevice], Awaitable[None]], Callable[[PlatformModel], None]]


class UnifiedWebPlatform:
    """One object for a model on any working tier: load, run, report progress.

    `model_type` is "text" (a sentence encoder), "text_generation" (a language model), "vision" (an
    image model), "multimodal" (one of images and texts), "audio" (a speech model) or
    "text_to_text". `platform` is a tier or "auto"; if a named one does not work, those that
    `fallback_to_webnn` and `fallback_to_wasm` allow are tried. With a `device` the model is loaded
    there, whatever `platform` says; `quantize` as for `load`.

    `precision` "fp16" stores float16 matrices and KV caches, "fp32" float32 caches and the weights
    as in the files; kernels compute in float32. `quantize` and a memory level of 2, which have
    fewer bits, have precedence; a level of 3 streams weights as in the files, and rejects
    `quantize`. `get_precision_report` says what that did.

    `enable_shader_precompilation` compiles during the load, otherwise the first pass does;
    `enable_parallel_loading` fetches two shards at a time. `optimization_level` applies to WebGPU:
    0 uses no optional feature of the device, 1 only default kernels, 2 those that were measured to
    be fast here before, 3 measures this model's own after its load, as
    `enable_compute_shader_optimizations` does at any level. `memory_optimization_level` is that of
    `set_memory_optimization_level`. With `enable_profiling` each result has `profile`: the kernels
    and their times. With `debug_shader_compilation` `get_shader_logs` has each compilation.

    Every method that waits returns an awaitable; without a running event loop (a plain script) it
    runs to completion and returns its result.
    """

    def __init__(
        self,
        model_name: str,
        model_type: str = "text",
        platform: str = "auto",
        *,
        device: Device | None = None,
        quantize: int | str | None = None,
        precision: str | None = None,
        fallback_to_webnn: bool = False,
        fallback_to_wasm: bool = False,
        enable_shader_precompilation: bool = True,
        enable_compute_shader_optimizations: bool = False,
        enable_parallel_loading: bool = False,
        enable_profiling: bool = False,
        debug_shader_compilation: bool = False,
        optimization_level: int = 2,
        memory_optimization_level: int = 0,
    ) -> None:
        if model_type not in MODEL_TYPES:
            problem = f"model_type {model_type!r}, and this version runs {sorted(MODEL_TYPES)}"
            raise UnsupportedModelError(model_name, problem)
        self.model_name = model_name
        self.model_type = model_type
        self.platform = platform
        self.quantize = quantize
        if precision not in (None, *_CACHES):
            hint = "For fewer bits: quantize=8 or quantize=4."
            raise InputError("precision", '"fp16" or "fp32"', repr(precision)[:80], hint=hint)
        self.precision = precision
        self.fallback_to_webnn = fallback_to_webnn
        self.fallback_to_wasm = fallback_to_wasm
        self.enable_shader_precompilation = enable_shader_precompilation
        self.enable_compute_shader_optimizations = enable_compute_shader_optimizations
        self.enable_parallel_loading = enable_parallel_loading
        self.enable_profiling = enable_profiling
        self.debug_shader_compilation = debug_shader_compilation
        self.optimization_level = _level("optimization_level", optimization_level)
        if device is not None and self.optimization_level < 2:
            expected = "2 or 3 with a device that is open already"
            raise InputError("optimization_level", expected, str(optimization_level))
        self._memory_level = _level("memory_optimization_level", memory_optimization_level)
        self._device = device
        self._fallbacks = True
        self._watchers: list[_Watcher] = []
        self._listeners: list[Callable[[str, float], None]] = []
        self._loading: SharedLoad[PlatformModel] = SharedLoad()

    @property
    def model(self) -> PlatformModel | None:
        """The loaded model."""
        return self._loading.model

    def watch(
        self,
        opened: Callable[[OpenDevice], Awaitable[None]],
        loaded: Callable[[PlatformModel], None],
    ) -> Callable[[], None]:
        """Call `opened` with the tier that a load opens, before anything runs on it, and `loaded`
        with the model; calling the result stops that.
        """
        watcher = opened, loaded
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def on_progress(self, callback: Callable[[str, float], None]) -> None:
        """Call `callback(stage, percent)` while a model loads."""
        self._listeners.append(callback)

    def load_model(self) -> Any:
        """Load the model (or return an awaitable of it); a second call returns the same one."""
        return _now_or_later(self._loaded())

    def run_inference(
        self, inputs: Mapping[str, Any]
    ) -> Awaitable[dict[str, Any]] | dict[str, Any]:
        """Run the model on `inputs`; load it first if necessary.

        For "text" `input_text` is a string or a list of strings, and the result has `embeddings`
        (n, C) float32. For "text_generation" it is one user's turn, further inputs are options of
        `LanguageModel.stream`, and the result has `text`, `ids`, `stop_reason` and `stats`. For
        "vision" `image` is an image or a list of them, and the result has `labels` and
        `classifications`, or `embeddings` of a model without labels. For "multimodal" it has
        `text_embeddings` and `image_embeddings` (n, D) of the given inputs, and for both the
        `probabilities` of the texts for each image. For "audio" `audio` is what
        `SpeechModel.transcribe` takes, further inputs are its options, and the result has `text`,
        `language` and `segments`; "text_to_text" is as "text_generation". All have `tier`,
        `tier_reason`, `device`, `model` and `ms`. InputError for inputs without any of these.
        """
        return _now_or_later(self._infer(inputs))

    def run_inference_optimized(
        self, inputs: Mapping[str, Any], *, enable_batching: bool = True, batch_size: int = 8
    ) -> Any:
        """As `run_inference`, with at most `batch_size` texts per pass, or one without batching.

        The result also has `queries_per_s`. Only for "text" models: InputError for others.
        """
        whole_number("run_inference_optimized, batch_size", batch_size, 1)
        if self.model_type != "text":
            raise InputError("run_inference_optimized", 'model_type "text"', repr(self.model_type))
        return _now_or_later(self._infer(inputs, batch_size if enable_batching else 1))

    def post_process_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a result to plain values for JSON: embeddings and their similarities as lists."""
        plain = dict(result)
        if (rows := plain.get("embeddings")) is not None:
            unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            plain |= {"embeddings": rows.tolist(), "similarities": (unit @ unit.T).tolist()}
        return plain

    def set_memory_optimization_level(self, level: int) -> None:
        """Trade time and precision for the device's memory, from the next load on.

        0 keeps everything resident; 1 frees intermediate values after each call; 2 also stores the
        weights in blocks of 8 bits (unless `quantize` is set). 3 also frees intermediate values,
        and holds one or two layers' weights, as in the files: each pass, and so each token of a
        language model, reads all of them again from the folder or the cache. InputError for another
        level, and while a model is loaded.
        """
        level = _level("set_memory_optimization_level", level)
        if self.model is not None:
            hint = "Close it first: platform.close()."
            raise InputError("set_memory_optimization_level", "no model", "a loaded one", hint=hint)
        self._memory_level = level

    def get_memory_usage(self) -> dict[str, int]:
        """Return the bytes that the model's device holds, by the driver's count.

        `now` and `peak`; `weights`, `activations`, `cache` (KV caches), `staging`, `buffers` are
        parts of `now`. All 0 if nothing is loaded.
        """
        opened = self.model or self._device
        use = opened.backend.memory if opened is not None else MemoryUse(0, 0, {})
        kinds = {name: use.by_kind.get(kind, 0) for name, kind in _MEMORY_KINDS.items()}
        return {"now": use.now_nbytes, "peak": use.peak_nbytes, **kinds}

    def get_precision_report(self) -> dict[str, Any]:
        """Return how the loaded model's numbers are stored, and the resulting error.

        `precision` is the argument; `weights` the format of matrices (None: as in the files),
        `weights_nbytes` all weights' bytes and `weights_nbytes_as_f32` their size as float32;
        `relative_error` and `max_error` those of the matrix with the largest error; `cache` and
        `activations`. Empty if nothing is loaded.
        """
        model = self.model
        if model is None:
            return {}
        report = model.quantization
        nbytes = model.weights.nbytes
        tensors = report.tensors if report else ()
        cache = "f16" if model.has_f16_cache else "f32"
        return {
            "precision": self.precision,
            "weights": report.format if report else None,
            "weights_nbytes": nbytes,
            "weights_nbytes_as_f32": report.nbytes_before if report else None,
            "relative_error": max((t.relative_error for t in tensors), default=0.0),
            "max_error": max((t.max_error for t in tensors), default=0.0),
            "cache": cache if isinstance(model, LanguageModel) else None,
            "activations": "f32",
        }

    def get_shader_logs(self) -> list[ShaderLog]:
        """Return the model device's compilations; empty without `debug_shader_compilation`."""
        if self.model is None or not self.debug_shader_compilation:
            return []
        return list(self.model.backend.shader_logs)

    def enable_feature_fallbacks(self, enabled: bool = True) -> None:
        """Set whether models loaded from now on may be cut to what the device can hold."""
        self._fallbacks = bool(enabled)

    def test_feature_support(self, feature: str) -> Awaitable[bool] | bool:
        """Whether this machine has a feature: `bascule.machine.features.FEATURES` has the names.

        InputError for another name.
        """
        return _now_or_later(_feature(feature))

    def close(self) -> None:
        """Free the model; a load in progress ends with an InputError."""
        self._loading.close()

    def _tiers(self) -> str | list[str]:
        """Return the tiers to pass to `load`."""
        if self.platform == "auto":
            return "auto"
        allowed = {"webnn": self.fallback_to_webnn, "wasm": self.fallback_to_wasm}
        others = [tier for tier, on in allowed.items() if on and tier != self.platform]
        return [self.platform, *others] if others else self.platform

    async def _loaded(self) -> PlatformModel:
        return await self._loading.get(self._load)

    async def _load(self) -> PlatformModel:
        model = await self._load_on_device()
        if not isinstance(model, MODEL_TYPES[self.model_type]):
            model.close()
            problem = f"it is a {type(model).__name__}, and model_type is {self.model_type!r}"
            raise UnsupportedModelError(self.model_name, problem)
        if self.optimization_level == 3 or self.enable_compute_shader_optimizations:
            try:
                await model.tune(_TUNING_S)
            except BaseException:
                model.close()
                raise
        for _, loaded in tuple(self._watchers):
            loaded(model)
        return model

    async def _load_on_device(self) -> AnyModel:
        """Load on the user's device, or on one that the model then owns."""
        options: DeviceLoadOptions = {
            "progress": self._report,
            "quantize": self._weights,
            "cache_dtype": _CACHES.get(self.precision or ""),
            "parallel": self.enable_parallel_loading,
            "precompile": self.enable_shader_precompilation,
            "fallbacks": self._fallbacks,
            "stream_weights": self._memory_level == _STREAMED,
        }
        if self._device is not None:
            await self._announce(self._device)
            return await self._device.load(self.model_name, **options)
        tiers, settings = self._tiers(), LoadSettings(**options)
        return await load_model(self.model_name, tiers, self._open, settings, owns=True)

    @property
    def _weights(self) -> int | str | None:
        """Return the format of float weights: the fewest bits that were asked for."""
        f16 = "f16" if self.precision == "fp16" and self._memory_level < _STREAMED else None
        return self.quantize or _BITS.get(self._memory_level) or f16

    async def _open(self, need: ModelNeed) -> OpenedTier:
        opened = await self._open_tier(need)
        try:
            await self._announce(opened)
        except BaseException:
            opened.backend.close()
            raise
        return opened

    async def _open_tier(self, need: ModelNeed) -> OpenedTier:
        """Open a tier for the model, without optional features at optimization level 0."""
        opened = await open_tier(self._tiers(), need, remember=self.optimization_level > 1)
        if self.optimization_level > 0 or opened.backend.tier != "webgpu":
            return opened
        opened.backend.close()
        backend = await open_named("webgpu-limited", remember=False)
        return OpenedTier(backend, f"{opened.reason}; optimization_level is 0")

    async def _announce(self, opened: OpenDevice) -> None:
        """Start the shader log and call the watchers, before anything runs on the device."""
        if self.debug_shader_compilation:
            opened.backend.log_shaders()
        for on_opened, _ in tuple(self._watchers):
            await on_opened(opened)

    async def _infer(
        self, inputs: Mapping[str, Any], batch_size: int | None = None
    ) -> dict[str, Any]:
        check_inputs(self.model_type, inputs)
        model = await self._loaded()
        profiling = self.enable_profiling and not self._watchers
        if profiling:
            await model.backend.start_profile()
        try:
            result = await self._ran(model, inputs, batch_size)
        finally:
            profile = await model.backend.stop_profile() if profiling else None
        if profile is not None:
            kernels = [asdict(each) for each in by_name(profile.work)]
            result["profile"] = {"timed_by": profile.timed_by, "kernels": kernels}
        if self._memory_level:
            model.trim()
        return result

    async def _ran(
        self, model: PlatformModel, inputs: Mapping[str, Any], batch_size: int | None
    ) -> dict[str, Any]:
        started = perf_counter()
        return {
            **await infer(model, inputs, batch_size),
            "tier": model.tier,
            "tier_reason": model.tier_reason,
            "device": model.device_name,
            "model": self.model_name,
            "ms": 1e3 * (perf_counter() - started),
        }

    def _report(self, progress: Progress) -> None:
        for callback in self._listeners:
            callback(progress.stage, 100 * progress.fraction)


# Time limit of measuring kernels, in seconds.
_TUNING_S = 10.0
# The KV cache's dtype by precision.
_CACHES: Mapping[str, CacheDType] = {"fp16": "f16", "fp32": "f32"}
# Bits of the weights by memory optimization level.
_BITS: Mapping[int, int] = {2: 8}
# The memory optimization level that streams weights.
_STREAMED = 3
_MEMORY_KINDS: Mapping[str, MemoryKind] = {
    "weights": "weights",
    "activations": "programs",
    "cache": "states",
    "staging": "staging",
    "buffers": "buffers",
}


def _level(where: str, level: int) -> int:
    return whole_number(where, level, 0, 3)


async def _feature(name: str) -> bool:
    return has_feature(await capabilities(), name)


def _now_or_later(work: Any) -> Any:
    """Run `work` to completion without a running event loop; otherwise return it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return sync(work)
    return work
