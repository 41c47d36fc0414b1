"""Which calls run on a simpler shader than the adapter in full would take, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bascule.backend.webgpu.choices import signature
from bascule.backend.webgpu.gpu import WANTED_FEATURES, AdapterInfo
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import select
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.program.program import Call

# What hardware of the last ten years gives a workgroup: enough for every default.
_FULL_LIMITS = {
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupSizeX": 256,
    "maxComputeWorkgroupStorageSize": 32 << 10,
}


@dataclass(frozen=True, slots=True)
class Simplified:
    """A call's op, the variant that serves it, the one it would have had, and what stood against
    that.
    """

    op: str
    variant: str
    instead_of: str
    reason: str


async def simplified(
    pipelines: Pipelines, adapter: AdapterInfo, calls: Sequence[Call]
) -> list[Simplified]:
    """Those of the calls, all prepared already, that a missing feature, a low limit or a shader
    that does not compile here has given another kernel. What tuning has chosen is no fallback.
    """
    full = _in_full(adapter)
    kernels = await pipelines.kernels_for(calls)
    found: list[Simplified] = []
    for call, kernel in zip(calls, kernels, strict=True):
        wanted = select(call, full)
        tuned = signature(call) in pipelines.choices.tuned
        if kernel.variant != wanted.variant and not tuned:
            why = "; ".join(_reasons(pipelines, adapter, call, wanted))
            found.append(Simplified(call.op, kernel.variant, wanted.variant, why))
    return found


def _reasons(
    pipelines: Pipelines, adapter: AdapterInfo, call: Call, wanted: Kernel
) -> Iterator[str]:
    default = select(call, adapter)
    for kernel in {k.digest: k for k in (wanted, default)}.values():
        if failure := pipelines.choices.failed.get(kernel.digest):
            line, text = failure.messages[0] if failure.messages else (0, "it does not compile")
            yield f"{failure.label}:{line}: {text}"
    full = _in_full(adapter)
    for feature in full.features - adapter.features:
        without = replace(full, features=full.features - {feature})
        if select(call, without).variant != wanted.variant:
            yield f"the adapter has no {feature}"
    for name, limit in adapter.limits.items():
        without = replace(full, limits={**full.limits, name: limit})
        if select(call, without).variant != wanted.variant:
            yield f"{name} is {limit:,}"


def _in_full(adapter: AdapterInfo) -> AdapterInfo:
    limits = {n: max(limit, _FULL_LIMITS.get(n, 0)) for n, limit in adapter.limits.items()}
    return replace(adapter, features=frozenset(WANTED_FEATURES), limits=limits)
