"""PlatformInfo: this machine's or page's properties, each with its source."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bascule.base.waiting import start
from bascule.compat.accelerator import (
    ANECapabilities,
    accelerator_from,
    measure_operations,
)
from bascule.errors import BasculeError
from bascule.machine.capabilities import Capabilities, capabilities
from bascule.machine.hardware import Hardware, detect_hardware


@dataclass(frozen=True, slots=True)
class PlatformInfo:
    """Values by name; None is unknown. `sources` says of each "measured ...", "reported by ..." or
    "unknown ...": none is derived from the user agent's name.

    `mps_available` is whether the system has Metal, `mps_feature_enabled` whether Bascule computes
    on a Metal adapter, `ane_available` whether WebNN makes a context on an NPU.
    """

    host: str | None
    engine: str | None
    webgpu_available: bool
    adapter: str | None
    software: bool | None
    dispatch: bool | None
    webnn_devices: tuple[str, ...] | None
    mps_available: bool | None
    mps_feature_enabled: bool | None
    ane_available: bool | None
    data_types: tuple[str, ...]
    operations_per_second: float | None
    memory_nbytes: int | None
    largest_tensor_nbytes: int | None
    largest_model_nbytes: int
    sources: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        """One line per value, with its source."""
        return "\n".join(
            f"{name}: {'unknown' if value is None else value} ({self.sources[name]})"
            for name, value in asdict(self).items()
            if name != "sources"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class DeviceCompatibilityChecker:
    """Answers questions about this machine by probing; awaitable if an event loop is running."""

    @staticmethod
    def is_mps_available() -> Any:
        """Whether this system has Metal; False if it is unknown (as in a page)."""
        return start(_is_mps_available())

    @staticmethod
    def is_ane_available() -> Any:
        """Whether WebNN makes a context on an NPU: the closest that a page can get to the ANE."""
        return start(_is_ane_available())

    @staticmethod
    def get_platform_info() -> Any:
        """Probe all of it: a PlatformInfo. A short matrix product runs on the best device."""
        return start(platform_info())

    @staticmethod
    def get_accelerator() -> Any:
        """Probe the device that computes here: an ANECapabilities."""
        return start(accelerator())


async def platform_info() -> PlatformInfo:
    """See `DeviceCompatibilityChecker.get_platform_info`; raises nothing."""
    result = await capabilities()
    operations, measured = await _operations(result)
    metal = next(each for each in detect_hardware() if each.name == "mps")
    return info_from(result, metal, operations, measured)


async def accelerator() -> ANECapabilities:
    """See `DeviceCompatibilityChecker.get_accelerator`; raises nothing."""
    result = await capabilities()
    return accelerator_from(result, (await _operations(result))[0])


@dataclass(frozen=True, slots=True)
class ANEIntegration:
    """An NPU on which WebNN makes a context; on a Mac it may be the ANE."""

    record: ANECapabilities

    def capabilities(self) -> ANECapabilities:
        """What is known of it."""
        return self.record


async def npu_integration() -> ANEIntegration | None:
    """Ask WebNN for a context on an NPU; None if it makes none. Its speed stays unknown."""
    result = await capabilities(dispatch=False)
    if "npu" not in (result.webnn or ()):
        return None
    record = ANECapabilities("an NPU, by WebNN", largest_model_nbytes=result.memory_budget_nbytes)
    return ANEIntegration(record)


async def _is_mps_available() -> bool:
    return bool(next(each for each in detect_hardware() if each.name == "mps").present)


async def _is_ane_available() -> bool:
    return "npu" in ((await capabilities(dispatch=False)).webnn or ())


async def _operations(machine: Capabilities) -> tuple[float | None, str]:
    """Return operations per second of the adapter, if it computes, else of the fastest tier."""
    tier = "webgpu" if machine.dispatch else "auto"
    try:
        operations, name = await measure_operations(tier)
    except BasculeError as error:
        return None, f"unknown: {error.what}"
    return operations, f"measured by a product of matrices on {name}"


def info_from(
    machine: Capabilities, metal: Hardware, operations: float | None, measured: str
) -> PlatformInfo:
    """Combine the probed facts."""
    probe = "the browser's feature tests" if machine.host == "page" else "wgpu-py and the system"
    no_adapter = f"unknown: {machine.problems.get('webgpu', 'there is no adapter')}"
    source = f"reported by {probe}"
    limits = machine.limits or {}
    sizes = [limits[n] for n in ("maxBufferSize", "maxStorageBufferBindingSize") if n in limits]
    by_adapter = "reported by the adapter" if machine.has_adapter else no_adapter
    memory = "navigator.deviceMemory" if machine.host == "page" else "the operating system"
    memory_source = (
        f"reported by {memory}" if machine.device_memory_nbytes else "unknown: it is not reported"
    )
    webnn_source = (
        f"measured: {machine.problems.get('webnn', 'contexts were asked for')}"
        if machine.webnn is not None
        else f"unknown: {machine.problems.get('webnn', 'it was not probed')}"
    )
    dispatch_source = "measured by a dispatch whose numbers were checked"
    uses_metal = None if machine.backend is None else machine.backend == "Metal"
    sources = {
        "host": "reported by Python's platform",
        "engine": source,
        "webgpu_available": "measured: an adapter was asked for",
        "adapter": by_adapter,
        "software": by_adapter,
        "dispatch": dispatch_source if machine.dispatch is not None else no_adapter,
        "webnn_devices": webnn_source,
        "mps_available": metal.source,
        "mps_feature_enabled": by_adapter if uses_metal is not None else "unknown in a page",
        "ane_available": webnn_source,
        "data_types": by_adapter,
        "operations_per_second": measured,
        "memory_nbytes": memory_source,
        "largest_tensor_nbytes": "reported by the adapter's limits" if sizes else no_adapter,
        "largest_model_nbytes": f"derived from the memory budget; memory is {memory_source}",
    }
    return PlatformInfo(
        host=machine.host,
        engine=machine.engine,
        webgpu_available=machine.has_adapter,
        adapter=machine.adapter_name if machine.has_adapter else None,
        software=machine.software,
        dispatch=machine.dispatch,
        webnn_devices=None if machine.webnn is None else tuple(sorted(machine.webnn)),
        mps_available=metal.present,
        mps_feature_enabled=uses_metal,
        ane_available=None if machine.webnn is None else "npu" in machine.webnn,
        data_types=tuple(sorted(machine.data_types)),
        operations_per_second=operations,
        memory_nbytes=machine.device_memory_nbytes,
        largest_tensor_nbytes=min(sizes) if sizes else None,
        largest_model_nbytes=machine.memory_budget_nbytes,
        sources=sources,
    )
