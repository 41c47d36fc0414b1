"""What rows of the kernel table share: operands, launch sizes, limits and parts by feature."""

from __future__ import annotations

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Workgroups
from bascule.program.program import Call, Value

_MOST_WORKGROUPS = 65535


def flat(lanes: int, workgroup: int) -> Workgroups:
    """Workgroups for `lanes` lanes in a row, folded into y past the limit of one dimension."""
    return folded(-(-lanes // workgroup))


def folded(groups: int) -> Workgroups:
    """So many workgroups in a row, folded into y past the limit of one dimension."""
    x = min(groups, _MOST_WORKGROUPS)
    return x, -(-groups // x), 1


def operand(call: Call, index: int) -> Value:
    """An operand that the op cannot do without."""
    value = call.operands[index]
    assert value is not None  # the graph refuses calls without their required operands
    return value


def reduces(adapter: AdapterInfo) -> list[tuple[str, str]]:
    """The parts for the reduce slot, best first, and the directives each needs."""
    shared = ("reduce_shared", "")
    if "subgroups" not in adapter.features:
        return [shared]
    return [("reduce_subgroup", "subgroups" if adapter.subgroups_enable else ""), shared]


def fits(adapter: AdapterInfo, lanes: int, nbytes: int = 0) -> bool:
    """Whether a workgroup of so many lanes and bytes may be."""
    limits = adapter.limits
    return (
        lanes <= limits["maxComputeInvocationsPerWorkgroup"]
        and nbytes <= limits["maxComputeWorkgroupStorageSize"]
    )
