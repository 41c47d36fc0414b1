"""Which calls run on a simpler shader than with all of the adapter's features, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bascule.backend.webgpu.choices import signature
from bascule.backend.webgpu.gpu import WANTED_FEATURES, AdapterInfo
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import select
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.program.program import Call

# Workgroup limits of the last ten years' hardware: enough for every default.
_FULL_LIMITS = {
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupSizeX": 256,
    "maxComputeWorkgroupStorageSize": 32 << 10,
}


async def simplified(
    pipelines: Pipelines, adapter: AdapterInfo, calls: Sequence[Call]
) -> list[str]:
    """Return why calls, all prepared already, use another kernel than on a device with every
    feature.

    One reason per such call: a missing feature, a low limit, a shader that does not compile. A
    tuned choice is not a fallback.
    """
    full = _with_full_limits(adapter)
    kernels = await pipelines.kernels_for(calls)
    results: list[str] = []
    for call, kernel in zip(calls, kernels, strict=True):
        wanted = select(call, full)
        tuned = signature(call) in pipelines.choices.tuned
        if kernel.variant != wanted.variant and not tuned:
            results.append("; ".join(_reasons(pipelines, adapter, call, wanted)))
    return results


def _reasons(
    pipelines: Pipelines, adapter: AdapterInfo, call: Call, wanted: Kernel
) -> Iterator[str]:
    default = select(call, adapter)
    for kernel in {k.digest: k for k in (wanted, default)}.values():
        if failure := pipelines.choices.failed.get(kernel.digest):
            line, text = failure.messages[0] if failure.messages else (0, "it does not compile")
            yield f"{failure.label}:{line}: {text}"
    full = _with_full_limits(adapter)
    for feature in full.features - adapter.features:
        without = replace(full, features=full.features - {feature})
        if select(call, without).variant != wanted.variant:
            yield f"the adapter has no {feature}"
    for name, limit in adapter.limits.items():
        without = replace(full, limits={**full.limits, name: limit})
        if select(call, without).variant != wanted.variant:
            yield f"{name} is {limit:,}"


def _with_full_limits(adapter: AdapterInfo) -> AdapterInfo:
    limits = {n: max(limit, _FULL_LIMITS.get(n, 0)) for n, limit in adapter.limits.items()}
    return replace(adapter, features=frozenset(WANTED_FEATURES), limits=limits)
