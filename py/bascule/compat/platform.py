"""UnifiedWebPlatform: one object for a model on whatever tier works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from bascule.base.progress import Progress
from bascule.base.waiting import sync
from bascule.choosing.auto import ModelNeed, open_tier
from bascule.choosing.openers import OpenDevice, OpenedTier
from bascule.compat.shared_load import SharedLoad
from bascule.device.device import Device
from bascule.device.loading import load_model
from bascule.device.options import DeviceLoadOptions, LoadSettings
from bascule.errors import InputError, UnsupportedModelError
from bascule.machine.capabilities import capabilities
from bascule.machine.features import has_feature
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel

_Watcher = tuple[
    Callable[[OpenDevice], Awaitable[None]], Callable[[EmbeddingModel | LanguageModel], None]
]


class UnifiedWebPlatform:
    """One object for a model on whatever tier works: load, run, hear of progress.

    `model_type` is "text" (a sentence encoder) or "text_generation" (a language model). `platform`
    is a tier or "auto"; where a named one does not work, those that `fallback_to_webnn` and
    `fallback_to_wasm` allow are tried. With a `device` the model is loaded there, whatever
    `platform` says; with `quantize` float weights become blocks of fewer bits (see `load`). Every
    method that waits returns an awaitable; `load_model`, `run_inference` and `test_feature_support`
    run to the end where no event loop runs (a plain script), and return their result itself.
    """

    def __init__(
        self,
        model_name: str,
        model_type: str = "text",
        platform: str = "auto",
        *,
        device: Device | None = None,
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
        self._device = device
        self._fallbacks = True
        self._watchers: list[_Watcher] = []
        self._listeners: list[Callable[[str, float], None]] = []
        self._loading: SharedLoad[EmbeddingModel | LanguageModel] = SharedLoad()

    @property
    def model(self) -> EmbeddingModel | LanguageModel | None:
        """The loaded model."""
        return self._loading.model

    def watch(
        self,
        opened: Callable[[OpenDevice], Awaitable[None]],
        loaded: Callable[[EmbeddingModel | LanguageModel], None],
    ) -> Callable[[], None]:
        """Call `opened` with the tier that a load opens, before anything runs on it, and `loaded`
        with the model; calling the result ends that.
        """
        watcher = opened, loaded
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

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
        """Whether this machine has a feature: `bascule.machine.features.FEATURES` has the names.

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
        options: DeviceLoadOptions = {
            "progress": self._tell,
            "quantize": self.quantize,
            "fallbacks": self._fallbacks,
        }
        if self._device is not None:
            await self._tell_opened(self._device)
            model = await self._device.load(self.model_name, **options)
        else:
            tiers, settings = self._tiers(), LoadSettings(**options)
            model = await load_model(self.model_name, tiers, self._open, settings, owns=True)
        if not isinstance(model, _MODEL_TYPES[self.model_type]):
            model.close()
            told = f"it is a {type(model).__name__}, and model_type is {self.model_type!r}"
            raise UnsupportedModelError(self.model_name, told)
        for _, loaded in tuple(self._watchers):
            loaded(model)
        return model

    async def _open(self, need: ModelNeed) -> OpenedTier:
        opened = await open_tier(self._tiers(), need)
        try:
            await self._tell_opened(opened)
        except BaseException:
            opened.backend.close()
            raise
        return opened

    async def _tell_opened(self, opened: OpenDevice) -> None:
        for tell, _ in tuple(self._watchers):
            await tell(opened)

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
