"""The WebGPU driver for a page: Pyodide to web/bridge/gpu.js; no proxy is held per object."""

from __future__ import annotations

import json
from array import array
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import js
from pyodide.ffi import JsException

from bascule.backend.memory import MemoryUse
from bascule.backend.profile import DeviceSpan, GpuProfile, Submission
from bascule.backend.webgpu.gpu import WANTED_FEATURES, WANTED_LIMITS, AdapterInfo, gpu_tier
from bascule.base.at_once import IN_PLAIN_CODE, WouldWaitError
from bascule.base.bridge_browser import bridge_module, bridge_modules, js_message
from bascule.errors import (
    DeviceLostError,
    GpuError,
    GpuOutOfMemoryError,
    InputError,
    ShaderError,
    TierUnavailableError,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.backend.memory import MemoryBudget, MemoryKind


_PARTS = (
    "handles",
    "staging",
    "tape",
    "pipelines",
    "submission",
    "faults",
    "canvas-read",
)  # as createGpu has them
_MODULES = ("device", "gpu", *_PARTS)


async def open_browser(*, early: bool = True, least: bool = False) -> BrowserGpu:
    """Open the page's device with its adapter's own limits and the features that kernels know.

    At `least` with none of the features and the limits that every device grants; then the adapter
    may be one of WebGPU's compatibility mode. `early` takes the device that web/early.js has opened
    meanwhile, which is never one of the least; False leaves it for the model.
    TierUnavailableError when the browser has no WebGPU, shows it no adapter, or gives no device.
    """
    limits, features = _json(WANTED_LIMITS), _json(WANTED_FEATURES)
    opened_early = await _take_early(limits + features) if early and not least else None
    if opened_early is not None:
        return BrowserGpu(opened_early)
    device, gpu, *parts = await bridge_modules(f"bridge/{name}.js" for name in _MODULES)
    try:
        opened = await device.openDevice(limits, features, least)
    except JsException as error:
        raise TierUnavailableError(gpu_tier(least), js_message(error)) from None
    return BrowserGpu(gpu.createGpu(opened, *parts))


def _json(names: Sequence[str]) -> str:
    """As JavaScript writes it, so that the two can be compared."""
    return json.dumps(names, separators=(",", ":"))


async def _take_early(asked: str) -> Any | None:
    """The device that web/early.js has opened before Python was up, once, if it serves."""
    promise = getattr(js.globalThis, "basculeEarly", None)
    js.globalThis.basculeEarly = None
    early: Any = await promise if promise else None
    if not early:
        return None
    if early.asked != asked or early.lost:
        early.destroy()
        return None
    return early


def _describe(info: Mapping[str, Any]) -> AdapterInfo:
    return AdapterInfo(
        vendor=info["vendor"],
        architecture=info["architecture"],
        device=info["device"],
        description=info["description"],
        backend="browser",
        software=info["software"],
        features=frozenset(info["features"]),
        limits=info["limits"],
        subgroups_enable=info["subgroups_enable"],
        identity=info["identity"],
        least=info["least"],
    )


class BrowserGpu:
    """A page's device that speaks `gpu.Gpu`. Every verb is one call into JavaScript."""

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.adapter = _describe(json.loads(bridge.info))
        # Bound once: looking an attribute up crosses into JavaScript too.
        self._alloc = bridge.alloc
        self._free = bridge.free
        self._write = bridge.write
        self._read = bridge.read
        self._replay = bridge.replay
        self._budget: MemoryBudget | None = None

    @property
    def lost(self) -> str:
        return str(self.bridge.lost)

    @property
    def allocated_nbytes(self) -> int:
        return int(self.bridge.allocated)

    @property
    def memory(self) -> MemoryUse:
        return MemoryUse(**json.loads(self.bridge.memory))

    def mark_memory(self) -> None:
        self.bridge.markMemory()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        self._budget = budget

    def _claim(self, verb: str, size: int) -> None:
        """Raise GpuOutOfMemoryError where so many more bytes do not fit the budget."""
        budget = self._budget
        if budget is not None and not budget.admits(size, lambda: self.allocated_nbytes, self.trim):
            raise GpuOutOfMemoryError(verb, size, detail=budget.used(self.allocated_nbytes))

    @property
    def n_objects(self) -> int:
        return int(self.bridge.objects)

    @property
    def n_pipelines(self) -> int:
        return int(self.bridge.pipelines)

    @property
    def n_early_pipelines(self) -> int:
        return int(self.bridge.early)

    @property
    def crossings(self) -> int:
        """Calls of verbs from Python so far."""
        return int(self.bridge.crossings)

    def alloc(self, nbytes: int, *, uniform: bool = False, kind: MemoryKind = "programs") -> int:
        size = max(4, (nbytes + 3) & ~3)
        limit = self.adapter.limits["maxBufferSize"]
        if nbytes < 0 or size > limit:
            raise GpuError("alloc", f"{nbytes:,} bytes, and this device allows 0 to {limit:,}.")
        self._claim("alloc", size)
        try:
            return self._alloc(size, uniform, kind)
        except JsException as error:
            raise self._gpu_error("alloc", error) from None

    async def granted(self, buffers: Iterable[int]) -> None:
        """See `Gpu.granted`; in plain code the read finds out."""
        if IN_PLAIN_CODE.get():
            return
        try:
            await self.bridge.granted(array("i", buffers))
        except JsException as error:
            raise self._gpu_error("alloc", error) from None

    def trim(self) -> int:
        try:
            return int(self.bridge.trim())
        except JsException as error:
            raise self._gpu_error("trim", error) from None

    def free(self, buffer: int) -> None:
        try:
            self._free(buffer)
        except JsException as error:
            raise self._gpu_error("free", error) from None

    def write(self, buffer: int, offset: int, data: Buffer) -> None:
        try:
            self._write(buffer, offset, data)
        except JsException as error:
            raise self._gpu_error("write", error) from None

    def read(self, buffer: int, offset: int, into: Buffer) -> Awaitable[None]:
        """See `Gpu.read`; in plain code it is done within the call."""
        if IN_PLAIN_CODE.get():
            return self._read_now(buffer, offset, into)
        self._claim("read", (memoryview(into).nbytes + 3) & ~3)
        try:
            promise = self._read(buffer, offset, memoryview(into).nbytes, into)
        except JsException as error:
            raise self._gpu_error("read", error) from None
        return self._finish_read(promise)

    async def _read_now(self, buffer: int, offset: int, into: Buffer) -> None:
        try:
            refusal = str(self.bridge.readNow(buffer, offset, into))
        except JsException as error:
            raise self._gpu_error("read", error) from None
        if refusal:
            raise WouldWaitError(refusal)

    async def _finish_read(self, promise: Any) -> None:
        try:
            await promise
        except JsException as error:
            raise self._gpu_error("read", error) from None

    async def pipeline(
        self,
        wgsl: str,
        constants: Mapping[str, float],
        bindings: str,
        label: str,
        entry: str = "main",
    ) -> int:
        """See `Gpu.pipeline`; in plain code it is compiled within the call."""
        overrides = json.dumps(dict(constants))
        try:
            if IN_PLAIN_CODE.get():
                return int(self.bridge.pipelineNow(wgsl, overrides, bindings, label, entry))
            answer = await self.bridge.pipeline(wgsl, overrides, bindings, label, entry)
        except JsException as error:
            raise self._gpu_error("pipeline", error) from None
        if isinstance(answer, str):
            reply = json.loads(answer)
            messages = [(line, text) for line, text, _ in reply]
            raise ShaderError(label, messages, column=reply[0][2] if reply else 0)
        return int(answer)

    async def screen(self, canvas: Any, width: int, height: int) -> Any:
        """A canvas of the page, whose `show` copies a buffer's words into it: bridge/screen.js.

        InputError where it cannot be one of this device.
        """
        module = await bridge_module("bridge/screen.js")
        try:
            return self.bridge.screen(module, canvas, width, height)
        except JsException as error:
            if self.lost:
                raise self._gpu_error("screen", error) from None
            raise InputError("canvas", "a canvas for WebGPU", js_message(error)) from None

    def show(self, screen: Any, buffer: int) -> None:
        """Copy a buffer into such a canvas after the work queued so far."""
        try:
            screen.show(buffer)
        except JsException as error:
            raise self._gpu_error("show", error) from None

    def drop_pipeline(self, pipeline: int) -> None:
        try:
            self.bridge.dropPipeline(pipeline)
        except JsException as error:
            raise self._gpu_error("drop_pipeline", error) from None

    def record(self, words: array[int]) -> int:
        try:
            return int(self.bridge.record(words))
        except JsException as error:
            raise self._gpu_error("record", error) from None

    def forget(self, tape: int) -> None:
        try:
            self.bridge.forget(tape)
        except JsException as error:
            raise self._gpu_error("forget", error) from None

    def replay(self, tape: int, writes: Buffer = b"") -> None:
        try:
            self._replay(tape, writes)
        except JsException as error:
            raise self._gpu_error("replay", error) from None

    def run(self, words: array[int], writes: Buffer = b"") -> None:
        try:
            self.bridge.run(words, writes)
        except JsException as error:
            raise self._gpu_error("run", error) from None

    async def start_profile(self) -> None:
        module = await bridge_module("bridge/profile.js")
        try:
            started = self.bridge.startProfile(module)
        except JsException as error:
            raise self._gpu_error("start_profile", error) from None
        if not started:
            raise InputError("start_profile", "a device that is not profiled", "one that is")

    async def stop_profile(self) -> GpuProfile:
        try:
            result = await self.bridge.stopProfile()
        except JsException as error:
            raise self._gpu_error("stop_profile", error) from None
        if not result:
            raise InputError("stop_profile", "a device that is profiled", "one that is not")
        return _profile_from(json.loads(result))

    def destroy(self) -> None:
        self.bridge.destroy()

    def _gpu_error(self, verb: str, error: JsException) -> GpuError:
        lost, text = self.lost, js_message(error)
        if lost:
            return DeviceLostError(lost)
        if getattr(error, "kind", "") == "memory":
            nbytes = int(getattr(error, "nbytes", -1))
            first, _, _ = text.partition("\n")  # Chromium goes on with its own call stack
            return GpuOutOfMemoryError(verb, None if nbytes < 0 else nbytes, detail=first)
        return GpuError(verb, text, label=str(getattr(error, "label", "")))


def _profile_from(fields: Mapping[str, Any]) -> GpuProfile:
    """What web/bridge/profile.js gives as JSON."""
    return GpuProfile(
        fields["timed"],
        fields["seconds"],
        [Submission(s["at"], s["pipelines"], s["ticks"], s["done"]) for s in fields["submissions"]],
        {int(name): label for name, label in fields["labels"].items()},
        [DeviceSpan(*each) for each in fields["compiled"]],
        [(at_s, nbytes) for at_s, nbytes in fields["memory"]],
        fields["untimed"],
        fields["written"],
        fields["read"],
        fields["crossings"],
    )
