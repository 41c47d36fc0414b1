"""The WebGPU driver for a page: Pyodide to web/bridge/gpu.js; no proxy is held per object."""

from __future__ import annotations

import json
from array import array
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import js
from pyodide.ffi import JsException

from bascule.backend.adapter import WANTED_LIMITS, AdapterInfo
from bascule.backend.memory import MemoryUse
from bascule.backend.profile import DeviceSpan, GpuProfile, Submission
from bascule.backend.webgpu.gpu import WANTED_FEATURES, gpu_tier
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


async def open_browser(*, early: bool = True, limited: bool = False) -> BrowserGpu:
    """Open the page's device with its adapter's limits and the features that kernels use.

    With `limited` it has no features and the default limits; then the adapter may be in WebGPU's
    compatibility mode. `early` takes the device that web/early.js has opened meanwhile, which never
    is a `limited` one; False leaves it for the model. TierUnavailableError if the browser has no
    WebGPU, no adapter, or gives no device.
    """
    limits, features = _json(WANTED_LIMITS), _json(WANTED_FEATURES)
    opened_early = await _take_early(limits + features) if early and not limited else None
    if opened_early is not None:
        return BrowserGpu(opened_early)
    device, gpu, *parts = await bridge_modules(f"bridge/{name}.js" for name in _MODULES)
    try:
        opened = await device.openDevice(limits, features, limited)
    except JsException as error:
        raise TierUnavailableError(gpu_tier(limited), js_message(error)) from None
    return BrowserGpu(gpu.createGpu(opened, *parts))


def _json(names: Sequence[str]) -> str:
    """Encode as JavaScript does, so that the texts can be compared."""
    return json.dumps(names, separators=(",", ":"))


async def _take_early(asked: str) -> Any | None:
    """Take the device of web/early.js, once; None if another was asked for."""
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
        limited=info["limited"],
    )


class BrowserGpu:
    """A page's device that implements `gpu.Gpu`. Every verb is one call into JavaScript."""

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.adapter = _describe(json.loads(bridge.info))
        # Bound once: looking up an attribute is a call into JavaScript, too.
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
        """Raise GpuOutOfMemoryError if that many more bytes do not fit the budget."""
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
        """Verb calls from Python so far."""
        return int(self.bridge.crossings)

    def alloc(self, nbytes: int, *, uniform: bool = False, kind: MemoryKind = "programs") -> int:
        size = max(4, (nbytes + 3) & ~3)
        limit = self.adapter.limits["maxBufferSize"]
        if nbytes < 0 or size > limit:
            raise GpuError("alloc", f"{nbytes:,} bytes, and this device allows 0 to {limit:,}.")
        self._claim("alloc", size)
        return int(self._call("alloc", self._alloc, size, uniform, kind))

    async def granted(self, buffers: Iterable[int]) -> None:
        """See `Gpu.granted`; in synchronous code the read reports it."""
        if IN_PLAIN_CODE.get():
            return
        await self._wait("alloc", self.bridge.granted, array("i", buffers))

    def trim(self) -> int:
        return int(self._call("trim", self.bridge.trim))

    def free(self, buffer: int) -> None:
        self._call("free", self._free, buffer)

    def write(self, buffer: int, offset: int, data: Buffer) -> None:
        self._call("write", self._write, buffer, offset, data)

    def read(self, buffer: int, offset: int, into: Buffer) -> Awaitable[None]:
        """See `Gpu.read`; in synchronous code it completes within the call."""
        if IN_PLAIN_CODE.get():
            return self._read_now(buffer, offset, into)
        nbytes = memoryview(into).nbytes
        self._claim("read", (nbytes + 3) & ~3)
        return self._wait("read", self._read, buffer, offset, nbytes, into)

    async def _read_now(self, buffer: int, offset: int, into: Buffer) -> None:
        if refusal := self._call("read", self.bridge.readNow, buffer, offset, into):
            raise WouldWaitError(str(refusal))

    def done(self) -> Awaitable[None]:
        return self._wait("done", self.bridge.done)

    async def pipeline(
        self,
        wgsl: str,
        constants: Mapping[str, float],
        bindings: str,
        label: str,
        entry: str = "main",
    ) -> int:
        """See `Gpu.pipeline`; in synchronous code it compiles within the call."""
        recipe = wgsl, json.dumps(dict(constants)), bindings, label, entry
        if IN_PLAIN_CODE.get():
            return int(self._call("pipeline", self.bridge.pipelineNow, *recipe))
        answer = await self._wait("pipeline", self.bridge.pipeline, *recipe)
        if isinstance(answer, str):
            reply = json.loads(answer)
            messages = [(line, text) for line, text, _ in reply]
            raise ShaderError(label, messages, column=reply[0][2] if reply else 0)
        return int(answer)

    async def screen(self, canvas: Any, width: int, height: int) -> Any:
        """Prepare a canvas of the page, whose `show` copies a buffer's words into it:
        bridge/screen.js.

        InputError if it cannot be used with this device.
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
        self._call("show", screen.show, buffer)

    def drop_pipeline(self, pipeline: int) -> None:
        self._call("drop_pipeline", self.bridge.dropPipeline, pipeline)

    def record(self, words: array[int]) -> int:
        return int(self._call("record", self.bridge.record, words))

    def forget(self, tape: int) -> None:
        self._call("forget", self.bridge.forget, tape)

    def replay(self, tape: int, writes: Buffer = b"") -> None:
        self._call("replay", self._replay, tape, writes)

    def run(self, words: array[int], writes: Buffer = b"") -> None:
        self._call("run", self.bridge.run, words, writes)

    async def start_profile(self) -> None:
        module = await bridge_module("bridge/profile.js")
        if not self._call("start_profile", self.bridge.startProfile, module):
            raise InputError("start_profile", "a device that is not profiled", "one that is")

    async def stop_profile(self) -> GpuProfile:
        result = await self._wait("stop_profile", self.bridge.stopProfile)
        if not result:
            raise InputError("stop_profile", "a device that is profiled", "one that is not")
        return _profile_from(json.loads(result))

    def _call(self, verb: str, function: Any, *arguments: object) -> Any:
        """Call JavaScript; convert errors of its device."""
        try:
            return function(*arguments)
        except JsException as error:
            raise self._gpu_error(verb, error) from None

    def _wait(self, verb: str, function: Any, *arguments: object) -> Awaitable[Any]:
        """Call JavaScript now; awaiting the result waits for its promise."""
        return self._awaited(verb, self._call(verb, function, *arguments))

    async def _awaited(self, verb: str, promise: Any) -> Any:
        try:
            return await promise
        except JsException as error:
            raise self._gpu_error(verb, error) from None

    def destroy(self) -> None:
        self.bridge.destroy()

    def _gpu_error(self, verb: str, error: JsException) -> GpuError:
        lost, text = self.lost, js_message(error)
        if lost:
            return DeviceLostError(lost)
        if getattr(error, "kind", "") == "memory":
            nbytes = int(getattr(error, "nbytes", -1))
            first, _, _ = text.partition("\n")  # Chromium appends its own call stack
            return GpuOutOfMemoryError(verb, None if nbytes < 0 else nbytes, detail=first)
        return GpuError(verb, text, label=str(getattr(error, "label", "")))


def _profile_from(fields: Mapping[str, Any]) -> GpuProfile:
    """Parse the JSON of web/bridge/profile.js."""
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
