"""Whether an operation needs a fallback, why, and its limits.

From tables: Safari's if a browser is given, else a record of capabilities; and the configuration's
limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bascule.backend.adapter import DEFAULT_LIMITS
from bascule.compat.fallback.operation_work import Operation
from bascule.compat.fallback.settings import Settings
from bascule.machine.capabilities import DEFAULT_MEMORY_BUDGET_NBYTES, Capabilities
from bascule.machine.safari import is_safari, safari_capabilities, safari_support
from bascule.program.rewrites.rewrite import Limits

BINDING = "maxStorageBufferBindingSize"
# Optional features and limits that the fastest kernels use.
_FAST_FEATURES = ("subgroups", "shader-f16")
_FAST_LIMITS = ("maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupStorageSize")


@dataclass(frozen=True, slots=True)
class FallbackNeed:
    """Why an operation needs a fallback; without `reasons` it needs none.

    `by_table` is the reason from the table of Safari, or "".
    """

    reasons: tuple[str, ...] = ()
    by_table: str = ""

    @property
    def needed(self) -> bool:
        """Whether the operation needs a fallback."""
        return bool(self.reasons)


def describes_machine(settings: Settings) -> bool:
    """Whether the settings alone describe the machine, so that nothing has to be probed."""
    return settings.capabilities is not None or is_safari(settings.browser_info)


def fallback_need(
    settings: Settings, operation: Operation, probed: Capabilities | None
) -> FallbackNeed:
    """Whether this machine limits an operation that runs in one piece.

    `probed` is used where neither the configuration nor the name of a Safari describes the machine.
    """
    record = settings.capabilities or probed
    reasons = [*_limit_reasons(settings, operation)]
    by_table = ""
    if settings.capabilities is None and (row := safari_support(settings.browser_info)) is not None:
        cell = getattr(row, operation.column)
        if cell.needs_fallback:
            subject = operation.column.replace("_", " ")
            by_table = f"{subject} of Safari {row.versions} is {cell.value!r}"
            reasons.append(by_table)
    elif record is not None:
        reasons += _probed_reasons(record, operation)
    return FallbackNeed(tuple(reasons), by_table)


def _limit_reasons(settings: Settings, operation: Operation) -> Iterator[str]:
    """Limits of the configuration below those of every WebGPU device."""
    if operation.column == "shader_compilation":
        return
    default_nbytes = DEFAULT_LIMITS[BINDING]
    if settings.binding_nbytes < default_nbytes:
        yield f"tensors are limited to {settings.binding_nbytes:,} bytes, under {default_nbytes:,}"
    if settings.memory_budget_nbytes is not None:
        budget_nbytes = settings.memory_budget_nbytes * settings.memory_threshold
        if budget_nbytes < DEFAULT_LIMITS["maxBufferSize"]:
            yield f"memory is limited to {budget_nbytes:,.0f} bytes, less than the largest buffer"


def _probed_reasons(record: Capabilities, operation: Operation) -> Iterator[str]:
    if not record.has_adapter:
        yield f"no WebGPU: {record.problems.get('webgpu', 'there is no adapter')}"
        return
    if record.dispatch is False:
        yield f"WebGPU does not compute: {record.problems.get('dispatch', 'wrong numbers')}"
    limits = record.limits or {}
    if operation.column != "shader_compilation":
        binding = limits.get(BINDING, 0)
        if binding < DEFAULT_LIMITS[BINDING]:
            yield f"bindings are of {binding:,} bytes at most"
        return
    for feature in _FAST_FEATURES:
        if feature not in (record.features or ()):
            yield f"the adapter has no {feature}"
    for name in _FAST_LIMITS:
        if limits.get(name, 0) < DEFAULT_LIMITS[name]:
            yield f"{name} is {limits.get(name, 0):,}"


def memory_budget(settings: Settings, probed: Capabilities | None) -> int:
    """Bytes that all buffers of an operation may take together."""
    if settings.memory_budget_nbytes is not None:
        return int(settings.memory_budget_nbytes)
    record = settings.capabilities or safari_capabilities(settings.browser_info) or probed
    return record.memory_budget_nbytes if record else DEFAULT_MEMORY_BUDGET_NBYTES


def limits_of(settings: Settings, memory_nbytes: float, device: Limits) -> Limits:
    """The limits of a program: `memory_nbytes` for all of its buffers, the device's limits, the
    configuration's, and those of a Safari.
    """
    binding = min(settings.binding_nbytes, device.binding_nbytes)
    if settings.capabilities is not None:
        binding = min(binding, (settings.capabilities.limits or {}).get(BINDING, binding))
    elif is_safari(settings.browser_info):
        binding = min(binding, DEFAULT_LIMITS[BINDING])
    work = min(settings.dispatch_work, device.dispatch_work)
    return Limits(binding, max(memory_nbytes, 1), work, settings.weights_nbytes)
