"""Device: an open tier that models, buffers and operations share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from bascule.array.array import Array, asarray
from bascule.array.place import ArrayDevice
from bascule.backend.base import Backend, Tier
from bascule.backend.memory import MemoryUse
from bascule.base.arrays import ArrayLike, DTypeLike, need_numpy
from bascule.base.closing import Closing
from bascule.choosing.auto import ModelNeed, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.choosing.reopening import Recovery
from bascule.choosing.switches import warn_of_unknown_names
from bascule.device.loading import load_model
from bascule.device.operations import Operations
from bascule.device.options import DeviceLoadOptions, LoadSettings
from bascule.kernels.buffer import BufferPool, DeviceBuffer, buffer_dtype
from bascule.kernels.canvas import Canvas
from bascule.kernels.kernel import Kernel
from bascule.kernels.kernel_device import KernelDevice, PoolDevice
from bascule.kernels.recording import Recording
from bascule.kernels.shader import Shader
from bascule.kernels.sources import source_of
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.models import AnyModel
from bascule.tasks.speech import SpeechModel
from bascule.tasks.voice import VoiceActivityModel

if TYPE_CHECKING:
    from bascule.backend.adapter import AdapterInfo


async def open_device(tier: str | Sequence[str] = "auto", *, remember: bool = True) -> Device:
    """Open a device: `async with await bascule.open_device() as device`.

    `tier` is "webgpu", "webgpu-limited", "webnn", "wasm", "cpu", "reference" (the cpu in float64)
    or "auto", the one expected to run a small sentence encoder fastest here; of several names it is
    the first that works.

    With `remember` what is learned about the device (its speed, fast and failed kernels) is stored
    for the next time. Raises InputError for an unknown name, TierUnavailableError if that tier, or
    for "auto" every tier, does not work here.
    """
    warn_of_unknown_names()
    return Device(await open_tier(tier, remember=remember), tier)


class Device(Closing):
    """An open device. Models that it loads share its adapter, its memory and its compiled kernels.

    `open_device` makes one. Close it, or use it in `async with`: that closes its models too.
    """

    def __init__(self, opened: OpenedTier, wanted: str | Sequence[str] = "auto") -> None:
        self._opened = opened
        self._wanted = wanted
        self._models: set[AnyModel] = set()
        self._recovery = Recovery(wanted)
        self._kernel_device = PoolDevice(BufferPool(opened.backend), self._reopened)
        self._ops = Operations(self._kernel_device)
        self._arrays: ArrayDevice | None = None

    def __repr__(self) -> str:
        state = "closed" if self._pool.closed else f"{self.memory().now_nbytes:,} bytes in use"
        return f"<Device {self.tier} ({self.device_name}), {state}>"

    @property
    def tier(self) -> Tier:
        """The tier that runs here."""
        return self._opened.backend.tier

    @property
    def tier_reason(self) -> str:
        """The reason for that tier."""
        return self._opened.reason

    @property
    def device_name(self) -> str:
        """The device's name, for people."""
        return self._opened.backend.device_name

    @property
    def backend(self) -> Backend:
        """The backend that runs programs."""
        return self._opened.backend

    @property
    def adapter(self) -> AdapterInfo | None:
        """The adapter: vendor, architecture, whether it is `software`.

        None on tiers without one: "webnn", "wasm" and "cpu".
        """
        return self._opened.backend.adapter

    @property
    def limits(self) -> Mapping[str, int]:
        """The limits of the WebGPU device, by WebGPU's names; empty on tiers without an adapter."""
        return MappingProxyType({} if self.adapter is None else dict(self.adapter.limits))

    @property
    def features(self) -> frozenset[str]:
        """The features of the WebGPU device, by WebGPU's names, such as "shader-f16"."""
        return frozenset() if self.adapter is None else self.adapter.features

    @property
    def lost(self) -> str:
        """Why the device was lost; empty while it is usable. The next work opens it again."""
        return self._opened.backend.lost

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._pool.closed

    def memory(self) -> MemoryUse:
        """Bytes that the device holds: `now_nbytes`, `peak_nbytes` and `by_kind`.

        On a WebGPU tier the driver counts every buffer; the others count weights, states and
        buffers, but not intermediate values.
        """
        self.backend.turns.when_free(self._pool.sweep)
        return self.backend.memory

    @property
    def ops(self) -> Operations:
        """The operations: `await device.ops.matmul(a, b)`, listed by `dir(device.ops)`."""
        return self._ops

    @property
    def models(self) -> tuple[AnyModel, ...]:
        """The open models that it has loaded."""
        return tuple(self._models)

    @property
    def arrays(self) -> ArrayDevice:
        """The device of `bascule.array`, for `device=device`."""
        if self._arrays is None:
            self._arrays = ArrayDevice(self.tier, self.backend, self._for_arrays)
        return self._arrays

    def asarray(self, array: Any, *, dtype: Any = None) -> Array:
        """Return an array of `bascule.array` on this device; errors as `bascule.array.asarray`."""
        self.check_open("asarray")
        return asarray(array, dtype=dtype, device=self)

    async def buffer(self, array: ArrayLike, *, dtype: DTypeLike | None = None) -> DeviceBuffer:
        """Copy an array to the device: float32 or float16 (as float32), or integers (as uint32), or
        with `dtype` as "float32", "float16", "uint32" or "int32".

        InputError for other dtypes and for an empty array, LimitError for one too large for the
        device.
        """
        await self._kernel_device.ready("buffer")
        await need_numpy("device.buffer", "Load numpy into this Pyodide first.")
        wanted = None if dtype is None else buffer_dtype(dtype, "buffer")
        async with self.backend.turns.turn():
            return self._pool.upload(array, "buffer", wanted)

    def kernel(
        self,
        wgsl: str | PathLike[str],
        entry: str = "main",
        constants: Mapping[str, float] | None = None,
        reference: Callable[..., Any] | None = None,
        *,
        name: str = "kernel",
    ) -> Kernel:
        """Make a kernel from WGSL source, or from a file with it: see `Kernel` for calls.

        `constants` sets override constants by name. `reference` is a numpy function that computes
        the same: it serves tiers without shaders, and the kernel is checked against it at its first
        use. `name` names the source in errors. ShaderError, with line and column, for source that
        cannot be parsed; the compiler's own errors are raised at the first use. InputError for an
        entry point or a constant that it does not have, and on a closed device.
        """
        self.check_open("kernel")
        text, label = source_of(wgsl, name)
        return Kernel(self._kernel_device, Shader(text, entry, label), constants or {}, reference)

    @property
    def kernel_device(self) -> KernelDevice:
        """This device as kernels use it."""
        return self._kernel_device

    def record(self) -> Recording:
        """Record calls of kernels: `with device.record() as tape:`, then `await tape.run()`."""
        self.check_open("record")
        return Recording(self._kernel_device)

    def canvas(self, width: int, height: int, target: Any = None) -> Canvas:
        """Make a canvas on which buffers are drawn: see `Canvas`.

        In a page `target` is a canvas element, or an `OffscreenCanvas` in a worker. InputError for
        sizes below 1 or above 8,192, another target, and on a closed device.
        """
        self.check_open("canvas")
        return Canvas(self._kernel_device, width, height, target)

    @overload
    async def load(
        self, model: Literal["all-MiniLM-L6-v2"], **options: Unpack[DeviceLoadOptions]
    ) -> EmbeddingModel: ...
    @overload
    async def load(
        self, model: Literal["SmolLM2-135M-Instruct"], **options: Unpack[DeviceLoadOptions]
    ) -> LanguageModel: ...
    @overload
    async def load(
        self,
        model: Literal["whisper-tiny.en", "whisper-base"],
        **options: Unpack[DeviceLoadOptions],
    ) -> SpeechModel: ...
    @overload
    async def load(
        self, model: Literal["silero-vad"], **options: Unpack[DeviceLoadOptions]
    ) -> VoiceActivityModel: ...
    @overload
    async def load(
        self, model: str | PathLike[str], **options: Unpack[DeviceLoadOptions]
    ) -> AnyModel: ...
    async def load(
        self, model: str | PathLike[str], **options: Unpack[DeviceLoadOptions]
    ) -> AnyModel:
        """Load a model onto this device, with the options of `bascule.load` except `tier`.

        The device stays open when the model closes. A model whose device is lost, or computes wrong
        numbers, moves to one that `tier` of `open_device` allows. Errors as `bascule.load`;
        InputError on a closed device.
        """
        self.check_open("load")
        models: list[AnyModel] = []

        def forget() -> None:
            self._models.difference_update(models)

        settings = LoadSettings(**options)
        loaded = await load_model(
            model, self._wanted, self._opened_for, settings, owns=False, on_close=forget
        )
        if self._pool.closed:
            loaded.close()
            self.check_open("load")
        models.append(loaded)
        self._models.add(loaded)
        return loaded

    def close(self) -> None:
        """Close its models and free everything on it. Closing twice is fine."""
        if self._pool.closed:
            return
        self._pool.closed = True
        for model in tuple(self._models):
            model.close()
        self.backend.turns.when_free(self._end)

    def check_open(self, verb: str) -> None:
        """InputError for a `verb` on a closed device."""
        self._pool.check_open(verb)

    def _end(self) -> None:
        self._ops.close()
        self._pool.sweep()
        self.backend.close()

    @property
    def _pool(self) -> BufferPool:
        return self._kernel_device.pool

    async def _reopened(self, lost: Backend) -> Backend:
        """Return another backend in place of a lost one."""
        self._opened = await self._recovery.reopen(lost)
        return self._opened.backend

    async def _for_arrays(self, _: Backend | None) -> Backend:
        if not self._pool.closed:
            await self._kernel_device.ready("arrays")
        return self.backend

    async def _opened_for(self, need: ModelNeed) -> OpenedTier:
        await self._kernel_device.ready("load")
        need.check(self.tier)
        return self._opened
