"""Loaders with progress and cancel: one model in chunks, or several components at the same time."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike, fspath

from bascule.base.closing import Closing
from bascule.base.progress import Progress
from bascule.compat.model_family import read_family
from bascule.device.device import Device, open_device
from bascule.device.loading import load
from bascule.device.options import DeviceLoadOptions
from bascule.errors import InputError
from bascule.tasks.models import AnyModel
from bascule.weights.names import check_component

DEFAULT_CHUNK_MB = 4.0
# The names of the parts of a model of images and texts.
_ENCODERS = frozenset({"vision_encoder", "text_encoder"})


class ProgressiveModelLoader:
    """Loads a model in chunks: resumable, verified, cached.

    `model_path` as for `bascule.load`. `parallel_components` fetches two shards of a model at a
    time (and holds twice the chunks meanwhile). `chunk_size_mb`, in MiB, is the unit that is cached
    and verified; what is already cached keeps its first chunk size. `quantize` as for
    `bascule.load`.
    """

    def __init__(
        self,
        model_path: str | PathLike[str],
        parallel_components: bool = True,
        chunk_size_mb: float = DEFAULT_CHUNK_MB,
        *,
        tier: str = "auto",
        quantize: int | str | None = None,
    ) -> None:
        self.model_path = model_path
        self.parallel_components = parallel_components
        self.chunk_size_mb = chunk_size_mb
        self.tier = tier
        self.quantize = quantize
        self.percent = 0
        self._callbacks: list[Callable[[int], None]] = []
        self._task: asyncio.Task[AnyModel] | None = None

    def register_progress_callback(self, callback: Callable[[int], None]) -> None:
        """Call `callback(percent)` while the weights load: 1 to 100, increasing."""
        self._callbacks.append(callback)

    async def load_model(self, *, wait: bool = True, device: Device | None = None) -> AnyModel:
        """Load, or continue a stopped load, onto `device` or onto a device of its own.

        See `bascule.load` for `wait`, and for the errors.
        """
        if self._task is not None and not self._task.done():
            raise InputError("load_model", "one load at a time", "a second")
        self.percent = 0
        options: DeviceLoadOptions = {
            "progress": self._notify,
            "wait": wait,
            "chunk_size_mb": self.chunk_size_mb,
            "parallel": self.parallel_components,
            "quantize": self.quantize,
        }
        if device is not None:
            work = device.load(self.model_path, **options)
        else:
            work = load(self.model_path, tier=self.tier, **options)
        self._task = asyncio.ensure_future(work)
        try:
            return await self._task
        except asyncio.CancelledError:
            self._task.cancel()
            raise

    def cancel(self) -> None:
        """Stop: `load_model` raises CancelledError, and what was fetched stays cached."""
        if self._task is not None:
            self._task.cancel()

    def _notify(self, progress: Progress) -> None:
        if progress.stage == "ready":
            percent = 100.0
        elif progress.stage == "weights":
            percent = 100 * progress.fraction
        else:
            return
        self._report(percent)

    def _report(self, percent: float) -> None:
        """Call the callbacks for a new whole percent."""
        if int(percent) > self.percent:
            self.percent = int(percent)
            for callback in self._callbacks:
                callback(self.percent)


class MultimodalModel(Closing, Mapping[str, AnyModel]):
    """Components by name on one device. Close it, or use it in `async with`."""

    def __init__(self, parts: Mapping[str, AnyModel], device: Device) -> None:
        self._parts = dict(parts)
        self._device = device

    def __getitem__(self, name: str) -> AnyModel:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def close(self) -> None:
        """Free all components and their device."""
        self._device.close()


class ParallelMultimodalLoader:
    """Loads the components of a model at the same time, on one device.

    `components` are folders in `model_path`, each a model of its own, such as two sentence
    encoders. If `model_path` itself is a model of images and texts, "vision_encoder" and
    "text_encoder" both name that model, which is loaded once.
    """

    def __init__(
        self,
        model_path: str | PathLike[str],
        components: Sequence[str],
        *,
        tier: str = "auto",
        chunk_size_mb: float = DEFAULT_CHUNK_MB,
    ) -> None:
        if not components or len(set(components)) != len(components):
            raise InputError("components", "different names, at least one", repr(list(components)))
        self.components = [check_component(name) for name in components]
        base = self._base = fspath(model_path).rstrip("/")
        self._chunk_size_mb = chunk_size_mb
        self._loaders = {
            name: ProgressiveModelLoader(f"{base}/{name}", chunk_size_mb=chunk_size_mb)
            for name in self.components
        }
        self.tier = tier
        self._task: asyncio.Task[MultimodalModel] | None = None

    @property
    def percent(self) -> float:
        """The overall percentage; each component counts the same."""
        return sum(each.percent for each in self._loaders.values()) / len(self._loaders)

    def register_progress_callback(self, callback: Callable[[str, float, float], None]) -> None:
        """Call `callback(component, its percent, overall percent)` while weights load."""
        for name, loader in self._loaders.items():
            loader.register_progress_callback(
                lambda percent, name=name: callback(name, percent, self.percent)
            )

    async def load_parallel(self) -> MultimodalModel:
        """Load all components; if one fails the others are stopped and freed."""
        self._task = asyncio.ensure_future(self._load())
        return await self._task

    def cancel(self) -> None:
        """Stop all; what was fetched stays cached."""
        if self._task is not None:
            self._task.cancel()

    async def _load(self) -> MultimodalModel:
        is_one_model = _ENCODERS.issuperset(self.components) and await _holds_both(self._base)
        device = await open_device(self.tier)
        if is_one_model:
            return await self._load_whole(device)
        tasks = {
            name: asyncio.ensure_future(loader.load_model(device=device))
            for name, loader in self._loaders.items()
        }
        try:
            await asyncio.gather(*tasks.values())
        except BaseException:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            device.close()
            raise
        return MultimodalModel({name: task.result() for name, task in tasks.items()}, device)

    async def _load_whole(self, device: Device) -> MultimodalModel:
        """Load one folder with all components; each of them reports its progress."""
        shared = ProgressiveModelLoader(self._base, chunk_size_mb=self._chunk_size_mb)
        for loader in self._loaders.values():
            shared.register_progress_callback(loader._report)
        try:
            model = await shared.load_model(device=device)
        except BaseException:
            device.close()
            raise
        return MultimodalModel(dict.fromkeys(self.components, model), device)


async def _holds_both(folder: str) -> bool:
    """Whether a folder's own config.json is that of a model of images and texts."""
    result = await read_family(folder)
    return result.family == "multimodal" and result.family_source == "config.json"
