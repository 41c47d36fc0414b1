"""The WebGPU driver for CPython, over wgpu-py."""

from __future__ import annotations

import json
import os
import re
import tempfile
from array import array
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bascule.backend.adapter import DEFAULT_LIMITS, WANTED_LIMITS, AdapterInfo
from bascule.backend.base import DESTROYED, Tier
from bascule.backend.memory import MemoryBudget, MemoryCount, MemoryUse
from bascule.backend.profile import DeviceSpan, GpuProfile
from bascule.backend.webgpu.gpu import WANTED_FEATURES, gpu_tier, unpack_writes
from bascule.backend.webgpu.handles import Handles
from bascule.backend.webgpu.profile_native import NativeProfile
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

    from bascule.backend.memory import MemoryKind

# wgpu-py's older spelling of the specification's feature names.
FEATURE_SPELLING = {"subgroups": "subgroup"}
_LETTERS = {"u": "uniform", "r": "read-only-storage", "w": "storage"}
# naga writes "wgsl:3:15" below the cause, Tint ":3:15 error: " before it.
_PLACE = re.compile(r":(\d+):(\d+)")
_STAGING_KEPT_NBYTES = 64 << 20


async def open_native(*, limited: bool = False) -> NativeGpu:
    """Open a device through wgpu-py, on the high-performance adapter.

    With the adapter's limits and the features that kernels use, or with `limited` none of them and
    the default limits. TierUnavailableError if there is no adapter or no device.
    """
    tier = gpu_tier(limited)
    adapter, version = await find_adapter(tier)
    wanted = () if limited else WANTED_FEATURES
    try:
        features = [f for f in wanted if FEATURE_SPELLING.get(f, f) in adapter.features]
        device: Any = await adapter.request_device_async(
            required_features=[FEATURE_SPELLING.get(f, f) for f in features],
            required_limits=_default_limits(adapter) if limited else _own_limits(adapter),
        )
    except Exception as error:  # wgpu-py raises several types, some of them private
        raise _unusable(tier, error) from error
    info = _describe(adapter.info, device.limits, features, version, limited=limited)
    return NativeGpu(device, info)


def _own_limits(adapter: Any) -> dict[str, int]:
    return {_dashed(name): adapter.limits[_dashed(name)] for name in WANTED_LIMITS}


def _default_limits(adapter: Any) -> dict[str, int]:
    """Request the default limits by name: wgpu-py requests the adapter's own for the others.

    An adapter of an older API (OpenGL) may fall short of the specification, and is used as it is.
    """
    results: dict[str, int] = {}
    for name, limited in DEFAULT_LIMITS.items():
        worse = max if name.startswith("min") else min
        results[_dashed(name)] = worse(limited, adapter.limits[_dashed(name)])
    return results


async def find_adapter(tier: Tier = "webgpu") -> tuple[Any, str]:
    """Return the high-performance adapter, and the version of wgpu-py.

    TierUnavailableError, for that `tier`, if there is none.
    """
    if "XDG_RUNTIME_DIR" not in os.environ:  # the Vulkan loader complains on stderr without it
        os.environ["XDG_RUNTIME_DIR"] = tempfile.gettempdir()
    try:
        import wgpu
    except ImportError as error:
        raise TierUnavailableError(
            tier,
            f"the Python package wgpu cannot be imported ({error})",
            hint="Install it: pip install wgpu.",
        ) from None
    try:
        adapter: Any = await wgpu.gpu.request_adapter_async(power_preference="high-performance")
        if adapter is None:
            raise RuntimeError("no adapter was found")
    except Exception as error:
        raise _unusable(tier, error) from error
    return adapter, wgpu.__version__


def adapter_facts(
    info: Mapping[str, Any], features: Any, limits: Mapping[str, int]
) -> dict[str, Any]:
    """Return what wgpu-py reports of an adapter, by the specification's names."""

    specified = {theirs: ours for ours, theirs in FEATURE_SPELLING.items()}

    def subgroup_size(which: str) -> Any:
        # wgpu-py 0.32 misspells it.
        return info.get(f"subgroup_{which}_size", info.get(f"stackgroup_{which}_size"))

    return {
        **{name: info.get(name) for name in ("vendor", "architecture", "device")},
        # The specification's description is the driver's name and version here.
        "driver": info.get("description"),
        "backend": info.get("backend_type"),
        "software": info.get("adapter_type") == "CPU",
        "features": [specified.get(name, name) for name in features],
        "limits": {_camel(name): value for name, value in limits.items()},
        "subgroup_min_size": subgroup_size("min"),
        "subgroup_max_size": subgroup_size("max"),
    }


def _camel(name: str) -> str:
    head, *rest = name.split("-")
    return head + "".join(part.title() for part in rest)


def _unusable(tier: Tier, error: Exception) -> TierUnavailableError:
    return TierUnavailableError(
        tier,
        f"wgpu has no usable GPU here ({error})",
        hint="Install a Vulkan driver (Debian: mesa-vulkan-drivers has one for any machine).",
    )


def _dashed(name: str) -> str:
    return re.sub(r"([A-Z])", lambda match: "-" + match.group(1).lower(), name)


def _describe(
    info: Mapping[str, Any],
    limits: Mapping[str, int],
    features: list[str],
    version: str = "",
    *,
    limited: bool = False,
) -> AdapterInfo:
    granted = {name: int(limits[_dashed(name)]) for name in WANTED_LIMITS}
    words = [str(info[name]) for name in ("vendor", "architecture", "device", "description")]
    return AdapterInfo(
        vendor=str(info["vendor"]),
        architecture=str(info["architecture"]),
        device=str(info["device"]),
        description=f"{info['device']} ({info['description']})",
        backend=str(info["backend_type"]),
        software=info["adapter_type"] == "CPU",
        features=frozenset(features),
        limits=granted,
        # The description contains the driver's version.
        identity=json.dumps(
            [
                *words,
                sorted(features),
                granted,
                f"wgpu {version}",
                *(("limited",) if limited else ()),
            ]
        ),
        limited=limited,
    )


@dataclass(slots=True)
class _Tape:
    groups: list[Any]
    dispatches: list[tuple[Any, int, int, int, int]]
    handles: list[int]  # the pipeline of each dispatch
    labels: list[str]  # its shader file
    used: list[tuple[int, str]]  # buffers, and a shader file that binds each
    checked: int = -1  # how many buffers had been freed when all of them were still there


class NativeGpu:
    """A wgpu-py device that implements `gpu.Gpu`."""

    def __init__(self, device: Any, adapter: AdapterInfo) -> None:
        self.adapter = adapter
        self.lost = ""
        self.crossings = 0
        self.n_early_pipelines = 0
        self._device = device
        self._queue: Any = device.queue
        self._buffers: Handles[Any] = Handles("buffer")
        self._pipelines: Handles[tuple[Any, str, str]] = Handles("pipeline")
        self._tapes: Handles[_Tape] = Handles("tape")
        self._layouts: dict[str, tuple[Any, Any]] = {}
        self._staging: dict[int, list[Any]] = {}
        self._frees = 0
        self._memory = MemoryCount()
        self._kinds: dict[int, MemoryKind] = {}
        self._profile: NativeProfile | None = None
        self._traffic = [0, 0, 0]  # bytes written and read, and crossings when a profile began
        self._commit: Callable[[_Tape], None] = self._commit_plain

    @property
    def allocated_nbytes(self) -> int:
        return self._memory.now_nbytes

    @property
    def memory(self) -> MemoryUse:
        return self._memory.use

    def mark_memory(self) -> None:
        self._memory.mark()

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        self._memory.budget = budget

    def _claim(self, verb: str, size: int) -> None:
        """Raise GpuOutOfMemoryError if that many more bytes do not fit the budget."""
        if why := self._memory.excess(size, self.trim):
            raise GpuOutOfMemoryError(verb, size, detail=why)

    @property
    def n_objects(self) -> int:
        """Live buffers and tapes."""
        return len(self._buffers) + len(self._tapes)

    @property
    def n_pipelines(self) -> int:
        return len(self._pipelines)

    def alloc(self, nbytes: int, *, uniform: bool = False, kind: MemoryKind = "programs") -> int:
        self._check_alive()
        limit = self.adapter.limits["maxBufferSize"]
        size = max(4, (nbytes + 3) & ~3)
        if nbytes < 0 or size > limit:
            raise GpuError("alloc", f"{nbytes:,} bytes, and this device allows 0 to {limit:,}.")
        self._claim("alloc", size)
        usage = "UNIFORM|COPY_DST" if uniform else "STORAGE|COPY_DST|COPY_SRC"
        try:
            buffer = self._device.create_buffer(size=size, usage=usage)
        except Exception as error:
            raise self._gpu_error("alloc", error, size) from None
        self._memory.add(kind, size)
        handle = self._buffers.add(buffer)
        self._kinds[handle] = kind
        return handle

    async def granted(self, buffers: Iterable[int]) -> None:
        """See `Gpu.granted`: `alloc` has already raised."""
        for buffer in buffers:
            self._buffers.get(buffer)

    def trim(self) -> int:
        self._check_alive()
        before = self.allocated_nbytes
        for buffers in self._staging.values():
            while buffers:
                self._drop_staging(buffers.pop())
        return before - self.allocated_nbytes

    def free(self, buffer: int) -> None:
        item = self._buffers.remove(buffer)
        self._memory.add(self._kinds.pop(buffer), -item.size)
        self._frees += 1
        item.destroy()

    def write(self, buffer: int, offset: int, data: Buffer) -> None:
        self._check_alive()
        target = self._buffers.get(buffer)
        view = memoryview(data).cast("B")
        self._traffic[0] += view.nbytes
        try:
            self._queue.write_buffer(target, offset, view)
        except Exception as error:
            raise self._gpu_error("write", error) from None

    def read(self, buffer: int, offset: int, into: Buffer) -> Awaitable[None]:
        self._check_alive()
        view = memoryview(into).cast("B")
        source = self._buffers.get(buffer)
        self._traffic[1] += view.nbytes

        def copy(encoder: Any, staging: Any) -> None:
            encoder.copy_buffer_to_buffer(source, offset, staging, 0, staging.size)

        return self._staged("read", view, copy)

    def done(self) -> Awaitable[None]:
        """See `Gpu.done`: wgpu-py 0.32 cannot call its own `on_submitted_work_done_async`, so this
        maps a staging buffer that a command after that work clears.
        """
        self._check_alive()

        def clear(encoder: Any, staging: Any) -> None:
            encoder.clear_buffer(staging)

        return self._staged("done", memoryview(bytearray(4)), clear)

    def _staged(
        self, verb: str, view: memoryview, encode: Callable[[Any, Any], None]
    ) -> Awaitable[None]:
        """Submit a command that writes a staging buffer; awaiting the result fills `view`."""
        size = (view.nbytes + 3) & ~3
        try:
            staging = self._take_staging(size)
        except Exception as error:
            raise self._gpu_error(verb, error, size) from None
        try:
            encoder = self._device.create_command_encoder()
            encode(encoder, staging)
            self._queue.submit([encoder.finish()])
        except Exception as error:
            self._drop_staging(staging)
            raise self._gpu_error(verb, error) from None
        return self._mapped(verb, staging, view)

    async def _mapped(self, verb: str, staging: Any, view: memoryview) -> None:
        try:
            await staging.map_async("READ")
            view[:] = staging.read_mapped(copy=False)[: view.nbytes]
            staging.unmap()
        except Exception as error:
            self._drop_staging(staging)
            raise self._gpu_error(verb, error) from None
        self._keep_staging(staging)

    async def pipeline(
        self,
        wgsl: str,
        constants: Mapping[str, float],
        bindings: str,
        label: str,
        entry: str = "main",
    ) -> int:
        self._check_alive()
        began = perf_counter()
        try:
            layout = self._layout(bindings)[1]
            module = self._device.create_shader_module(label=label, code=wgsl)
            stage = {"module": module, "entry_point": entry, "constants": dict(constants)}
            compiled = await self._device.create_compute_pipeline_async(
                label=label, layout=layout, compute=stage
            )
        except Exception as error:
            lost = self._gpu_error("pipeline", error)
            if isinstance(lost, DeviceLostError):
                raise lost from None
            raise _shader_error(label, str(error)) from None
        handle = self._pipelines.add((compiled, bindings, label))
        if (profile := self._profile) is not None:
            at_s, seconds = began - profile.began_s, perf_counter() - began
            profile.compiled.append(DeviceSpan(handle, label, at_s, seconds))
        return handle

    def drop_pipeline(self, pipeline: int) -> None:
        self._check_alive()
        self._pipelines.remove(pipeline)

    def record(self, words: array[int]) -> int:
        self._check_alive()
        return self._tapes.add(self._decoded(words))

    def run(self, words: array[int], writes: Buffer = b"") -> None:
        self._check_alive()
        self._submit(self._decoded(words), writes)

    def _decoded(self, words: array[int]) -> _Tape:
        at = 2
        groups: list[Any] = []
        dispatches: list[tuple[Any, int, int, int, int]] = []
        handles: list[int] = []
        labels: list[str] = []
        used: list[tuple[int, str]] = []
        try:
            for _ in range(words[0]):
                end = at + 2 + 4 * words[at + 1]
                groups.append(self._group(words[at], words[at + 2 : end]))
                label = self._pipelines.get(words[at])[2]
                used += ((buffer, label) for buffer in words[at + 3 : end : 4])
                at = end
            for _ in range(words[1]):
                name, group, x, y, z = words[at : at + 5]
                pipeline, _, label = self._pipelines.get(name)
                handles.append(name)
                labels.append(label)
                dispatches.append((pipeline, group, x, y, z))
                at += 5
        except IndexError:
            raise GpuError("record", "the tape ends in the middle of a record.") from None
        return _Tape(groups, dispatches, handles, labels, used)

    def forget(self, tape: int) -> None:
        self._tapes.remove(tape)

    def replay(self, tape: int, writes: Buffer = b"") -> None:
        self._check_alive()
        recorded = self._tapes.get(tape)
        self._check_buffers(recorded)
        self._submit(recorded, writes)

    def _submit(self, recorded: _Tape, writes: Buffer) -> None:
        try:
            for buffer, offset, data in unpack_writes(writes):
                self._traffic[0] += data.nbytes
                self._queue.write_buffer(self._buffers.get(buffer), offset, data)
            self._commit(recorded)
        except GpuError:
            raise
        except Exception as error:
            raise self._gpu_error("replay", error, label=self._refused(recorded)) from None

    def _commit_plain(self, tape: _Tape) -> None:
        self._queue.submit([self._encoded(tape, tape.dispatches)])

    def _commit_timed(self, tape: _Tape) -> None:
        profile = self._profile
        assert profile is not None  # `start_profile` sets both
        profile.labels.update(zip(tape.handles, tape.labels, strict=True))
        timed = profile.encode(tape.groups, tape.dispatches, tape.handles)
        self._queue.submit([timed or self._encoded(tape, tape.dispatches)])
        profile.submitted(self._queue)

    async def start_profile(self) -> None:
        self._check_alive()
        if self._profile is not None:
            raise InputError("start_profile", "a device that is not profiled", "one that is")
        timed = "timestamp-query" in self.adapter.features
        count = partial(self._memory.add, "profile")
        self._profile = NativeProfile(self._device, timed, count)
        self._traffic = [0, 0, self.crossings]
        self._memory.start_samples()
        self._commit = self._commit_timed

    async def stop_profile(self) -> GpuProfile:
        self._check_alive()
        profile, self._profile = self._profile, None
        if profile is None:
            raise InputError("stop_profile", "a device that is profiled", "one that is not")
        self._commit = self._commit_plain
        memory = [(at_s - profile.began_s, n) for at_s, n in self._memory.stop_samples()]
        written, read, crossings = self._traffic
        try:
            result = await profile.finish(self._queue, self._timestamp_period())
        except Exception as error:
            raise self._gpu_error("stop_profile", error) from None
        return replace(
            result,
            memory=memory,
            written_nbytes=written,
            read_nbytes=read,
            crossings=self.crossings - crossings - 1,
        )

    def _timestamp_period(self) -> float:
        from wgpu.backends.wgpu_native import lib

        native: Any = lib
        return float(native.wgpuQueueGetTimestampPeriod(self._queue._internal))

    def _encoded(self, tape: _Tape, dispatches: Sequence[tuple[Any, int, int, int, int]]) -> Any:
        encoder = self._device.create_command_encoder()
        run = encoder.begin_compute_pass()
        for pipeline, group, x, y, z in dispatches:
            run.set_pipeline(pipeline)
            run.set_bind_group(0, tape.groups[group])
            run.dispatch_workgroups(x, y, z)
        run.end()
        return encoder.finish()

    def _refused(self, tape: _Tape) -> str:
        """Return the shader file of the first dispatch that is rejected alone; empty if none is."""
        for dispatch, label in zip(tape.dispatches, tape.labels, strict=True):
            try:
                self._encoded(tape, [dispatch])
            except Exception:  # wgpu-py raises several types, some of them private
                return label
        return ""

    def _check_buffers(self, tape: _Tape) -> None:
        """GpuError if a buffer was freed since: wgpu would abort the process when it is used."""
        if tape.checked == self._frees:
            return
        for buffer, label in tape.used:
            if buffer not in self._buffers:
                raise GpuError("replay", "a buffer that it uses has been freed.", label=label)
        tape.checked = self._frees

    def destroy(self) -> None:
        if self.lost:
            return
        self.lost = DESTROYED
        for buffer in [
            *self._buffers.clear(),
            *(b for buffers in self._staging.values() for b in buffers),
        ]:
            buffer.destroy()
        if self._profile is not None:
            self._profile.close()
            self._profile = None
        self._tapes.clear()
        self._pipelines.clear()
        self._staging.clear()
        self._layouts.clear()
        self._kinds.clear()
        self._memory.clear()
        self._device.destroy()

    def _check_alive(self) -> None:
        self.crossings += 1
        if self.lost:
            raise DeviceLostError(self.lost)

    def _gpu_error(
        self, verb: str, error: Exception, nbytes: int | None = None, label: str = ""
    ) -> GpuError:
        """Convert one of wgpu's errors; records a lost device."""
        if isinstance(error, GpuError):
            return error
        text = " ".join(str(error).split())
        if "device is lost" in text.lower() or "device lost" in text.lower():
            self.lost = text
            return DeviceLostError(text)
        # wgpu-native 27 reports it as a validation error, in the words of wgpu-core.
        if isinstance(error, MemoryError) or "Not enough memory left" in text:
            return GpuOutOfMemoryError(verb, nbytes, detail=text)
        return GpuError(verb, text, label=label)

    def _layout(self, bindings: str) -> tuple[Any, Any]:
        if bindings not in self._layouts:
            entries = [
                {"binding": index, "visibility": "COMPUTE", "buffer": {"type": _LETTERS[letter]}}
                for index, letter in enumerate(bindings)
                if letter != "-"
            ]
            group = self._device.create_bind_group_layout(entries=entries)
            pipeline_layout = self._device.create_pipeline_layout(bind_group_layouts=[group])
            self._layouts[bindings] = (group, pipeline_layout)
        return self._layouts[bindings]

    def _group(self, pipeline: int, flat: array[int]) -> Any:
        _, bindings, label = self._pipelines.get(pipeline)
        entries = [
            {
                "binding": flat[at],
                "resource": {
                    "buffer": self._buffers.get(flat[at + 1]),
                    "offset": 4 * flat[at + 2],
                    "size": 4 * flat[at + 3],
                },
            }
            for at in range(0, len(flat), 4)
        ]
        try:
            return self._device.create_bind_group(layout=self._layout(bindings)[0], entries=entries)
        except Exception as error:
            raise self._gpu_error("record", error, label=label) from None

    def _take_staging(self, size: int) -> Any:
        unused = self._staging.get(size)
        if unused:
            return unused.pop()
        self._claim("read", size)
        buffer = self._device.create_buffer(size=size, usage="MAP_READ|COPY_DST")
        self._memory.add("staging", size)
        return buffer

    def _keep_staging(self, staging: Any) -> None:
        if (
            sum(size * len(buffers) for size, buffers in self._staging.items())
            > _STAGING_KEPT_NBYTES
        ):
            self._drop_staging(staging)
        else:
            self._staging.setdefault(staging.size, []).append(staging)

    def _drop_staging(self, staging: Any) -> None:
        self._memory.add("staging", -staging.size)
        staging.destroy()


def _shader_error(label: str, text: str) -> ShaderError:
    """Convert a compiler's report to (line, message)."""
    place = _PLACE.search(text)
    match = re.search(r"error: (.+)", text) or re.search(r"Caused by:\s+(.+)", text)
    line, column = (int(place.group(1)), int(place.group(2))) if place else (0, 0)
    message = match.group(1).strip() if match else " ".join(text.split())
    return ShaderError(label, [(line, message)], column=column)
