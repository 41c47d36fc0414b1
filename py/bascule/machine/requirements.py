"""Compare what an operation needs with what a machine has.

A field that is None (unknown) never satisfies a requirement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bascule.errors import CapabilityMismatch, CapabilityMismatchError, InputError
from bascule.machine.capabilities import Capabilities, capabilities
from bascule.machine.hints import hint_for

_MIB = 1 << 20
# A partial match scores less than 1: a score of 1 means that nothing is missing.
_MAX_OF_A_LACK = 0.99
_FLAGS = frozenset(f.name for f in fields(Capabilities) if f.type == "bool | None") - {
    "software",
    "is_fallback_adapter",
}
_SETS = ("features", "wgsl_features", "data_types")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityRequirements:
    """The requirements of an operation; the defaults require nothing.

    The first six are those of the Metal guide that Bascule grew out of, each as close as a page or
    a Python process can come. No page reaches the Apple Neural Engine: `ane_support` asks for a
    WebNN context on an NPU, which on a Mac may use it.
    """

    neural_network_support: bool = False  # a device that computes: WebGPU's, or one of WebNN's
    matrix_multiplication: bool = False  # such a device, WASM SIMD, or native code
    convolution_support: bool = False  # the same, but for WebNN: its tier runs no images
    graph_api: bool = False  # runs graphs: WebNN
    minimum_memory_mb: int = 0  # MiB of the memory budget
    ane_support: bool = False
    hardware_adapter: bool = False  # an adapter that is no software
    needs: frozenset[str] = frozenset()  # yes-or-no fields: "jspi", "threads", "wasm_simd", ...
    features: frozenset[str] = frozenset()  # of the adapter: "shader-f16", "subgroups", ...
    wgsl_features: frozenset[str] = frozenset()
    data_types: frozenset[str] = frozenset()  # "float16", ...: see Capabilities.data_types
    limits: Mapping[str, int] = field(default_factory=dict[str, int])  # at least; "min...": at most
    subgroup_size: int = 0  # one that the adapter's subgroups can have
    minimum_storage_mb: int = 0  # MiB that the origin may keep

    def __post_init__(self) -> None:
        """InputError for a negative number, a string in place of a list, an unknown name."""
        for name in (*_SETS, "needs"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        unknown = self.needs - _FLAGS
        if unknown:
            raise InputError("needs", f"some of {sorted(_FLAGS)}", repr(sorted(unknown)))
        sizes = {n: getattr(self, n) for n in ("minimum_memory_mb", "subgroup_size")}
        sizes |= {"minimum_storage_mb": self.minimum_storage_mb, **self.limits}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(name, "a whole number of at least 0", repr(value))


def meets_requirements(available: Capabilities, required: CapabilityRequirements) -> bool:
    """Whether nothing is missing."""
    return not get_requirement_mismatch(available, required)


def get_requirement_mismatch(
    available: Capabilities, required: CapabilityRequirements
) -> list[CapabilityMismatch]:
    """Return everything that is missing."""
    return [check.mismatch() for check in _checks(available, required) if check.share < 1]


def compatibility_score(available: Capabilities, required: CapabilityRequirements) -> float:
    """Return how much of the requirements is met, 0.0 to 1.0; 1.0 if and only if all are.

    The mean over the requirements: a bool counts 1 or 0, a size the share that is available.
    """
    shares = [check.share for check in _checks(available, required)]
    return sum(shares) / len(shares) if shares else 1.0


def validate_capabilities(
    available: Capabilities, required: CapabilityRequirements, device_name: str = ""
) -> None:
    """CapabilityMismatchError with everything that is missing, if anything is."""
    mismatches = get_requirement_mismatch(available, required)
    if mismatches:
        name = device_name or (available.adapter_name if available.has_adapter else "")
        raise CapabilityMismatchError(name or "This machine", mismatches)


async def validate_operation_requirements(
    required: CapabilityRequirements, available: Capabilities | None = None
) -> Capabilities:
    """Check requirements before an operation; probe if no record is given, and return the record.

    CapabilityMismatchError with everything that is missing, if anything is.
    """
    result = await capabilities() if available is None else available
    validate_capabilities(result, required)
    return result


@dataclass(frozen=True, slots=True)
class _Check:
    """One requirement: the share that is available, and why not more."""

    capability: str
    share: float
    required: str
    found: str

    def mismatch(self) -> CapabilityMismatch:
        hint = hint_for(self.capability)
        return CapabilityMismatch(self.capability, self.required, self.found, hint)


def _checks(has: Capabilities, needs: CapabilityRequirements) -> Iterator[_Check]:
    yield from _device_checks(has, needs)
    for name in sorted(needs.needs):
        yield _flag_check(name, getattr(has, name), _why(has, name))
    for kind in _SETS:
        present: frozenset[str] | None = getattr(has, kind)
        for name in sorted(getattr(needs, kind)):
            yield _flag_check(
                name, None if present is None else name in present, _why(has, "webgpu")
            )
    for name, size in sorted(needs.limits.items()):
        yield _size(name, size, (has.limits or {}).get(name), _why(has, "webgpu"))
    if needs.subgroup_size:
        yield _subgroup(has, needs.subgroup_size)
    for name, size, result in (
        ("minimum_memory_mb", needs.minimum_memory_mb, has.memory_budget_nbytes),
        ("minimum_storage_mb", needs.minimum_storage_mb, has.storage_quota_nbytes),
    ):
        if size:
            yield _size(name, size, None if result is None else result // _MIB, "", " MiB")


def _device_checks(has: Capabilities, needs: CapabilityRequirements) -> Iterator[_Check]:
    accelerated = bool(has.dispatch or has.webnn)
    computes = bool(has.dispatch or has.wasm_simd or has.host == "native")
    for name, present in (
        ("neural_network_support", accelerated),
        ("matrix_multiplication", accelerated or computes),
        ("convolution_support", computes),
    ):
        if getattr(needs, name):
            yield _flag_check(name, present, _why(has, "webgpu", "dispatch"))
    for name, present in (
        ("graph_api", None if has.webnn is None else bool(has.webnn)),
        ("ane_support", None if has.webnn is None else "npu" in has.webnn),
    ):
        if getattr(needs, name):
            yield _flag_check(name, present, _why(has, "webnn"))
    if needs.hardware_adapter:
        present = None if has.software is None else not has.software
        name = has.adapter_name if has.has_adapter else _why(has, "webgpu")
        yield _flag_check("hardware_adapter", present, name)


def _why(has: Capabilities, *names: str) -> str:
    return "; ".join(has.problems[name] for name in names if name in has.problems)


def _flag_check(name: str, present: bool | None, why: str) -> _Check:
    if present:
        return _Check(name, 1.0, "yes", "yes")
    return _Check(name, 0.0, "yes", _unknown(why) if present is None else _with("no", why))


def _size(name: str, size: int, available: int | None, why: str, unit: str = "") -> _Check:
    """Require at least `size`; a limit named "min..." is an alignment, where smaller is better."""
    at_most = name.startswith("min") and not unit
    required = f"at {'most' if at_most else 'least'} {size:,}{unit}"
    if available is None:
        return _Check(name, 0.0, required, _unknown(why))
    part, whole = (size, available) if at_most else (available, size)
    return _Check(name, share_of(part, whole), required, f"{available:,}{unit}")


def share_of(available: float | None, required: float) -> float:
    """Return the share of a size that is available: 0 if unknown, 1 only if it suffices."""
    if required == 0:
        return 1.0
    if available is None:
        return 0.0
    return 1.0 if available >= required else min(available / required, _MAX_OF_A_LACK)


def _subgroup(has: Capabilities, size: int) -> _Check:
    low, high = has.subgroup_min_size, has.subgroup_max_size
    if has.features is not None and "subgroups" not in has.features:
        # Firefox reports sizes without having the feature.
        return _Check("subgroup_size", 0.0, f"{size}", "no subgroups")
    if low is None or high is None:
        return _Check("subgroup_size", 0.0, f"{size}", _unknown(_why(has, "webgpu")))
    share = 1.0 if low <= size <= high else 0.0
    return _Check("subgroup_size", share, f"{size}", f"{low} to {high}")


def _unknown(why: str) -> str:
    return _with("unknown", why)


def _with(value: str, why: str) -> str:
    return f"{value} ({why})" if why else value


def _names(where: str, value: Any) -> frozenset[str]:
    if isinstance(value, str | Mapping) or not isinstance(value, Collection):
        raise InputError(where, "a set of names", repr(value))
    return frozenset(value)
