"""What rows of the kernel table share: operands, launch sizes, limits and parts by feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import prod

from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel, Numbers, Variants, Workgroups, make_kernel
from bascule.program.program import Call, Sizes, Value

_MAX_WORKGROUPS = 65535


def flat(lanes: int, workgroup: int) -> Workgroups:
    """Workgroups for `lanes` lanes, folded into y past the limit of one dimension."""
    return folded(-(-lanes // workgroup))


def folded(groups: int) -> Workgroups:
    """That many workgroups, folded into y past the limit of one dimension."""
    x = min(groups, _MAX_WORKGROUPS)
    return x, -(-groups // x), 1


def operand(call: Call, index: int) -> Value:
    """Return an operand that is not optional."""
    value = call.operands[index]
    assert value is not None  # the graph refuses calls without their required operands
    return value


def reduces(adapter: AdapterInfo) -> list[tuple[str, str]]:
    """Return the parts for the reduce slot, best first, and the directives each needs."""
    shared = ("reduce_shared", "")
    if "subgroups" not in adapter.features:
        return [shared]
    return [("reduce_subgroup", "subgroups" if adapter.subgroups_enable else ""), shared]


def fits(adapter: AdapterInfo, lanes: int, nbytes: int = 0) -> bool:
    """Whether a workgroup of that many lanes and bytes is allowed."""
    limits = adapter.limits
    return (
        lanes <= limits["maxComputeInvocationsPerWorkgroup"]
        and nbytes <= limits["maxComputeWorkgroupStorageSize"]
    )


def lane_per_element(
    call: Call,
    numbers: Callable[[Sizes], Numbers],
    *,
    name: str = "",
    lanes: int | None = None,
    workgroup: int = 64,
    parts: tuple[str, ...] = (),
    constants: Mapping[str, float] | None = None,
) -> Variants:
    """Return the one kernel of `name`, by default the op's, with a lane per element of the result,
    or with `lanes`; `workgroup` is its shader's size.
    """
    n = prod(call.result.limits) if lanes is None else lanes
    launch = partial(flat, n, workgroup)
    make = partial(make_kernel, call, name or call.op, numbers, launch)
    return [partial(make, parts=parts, constants=constants)]


def elementwise(
    call: Call, adapter: AdapterInfo, parts: tuple[str, ...] = (), **fields: str
) -> Variants:
    """Return the op's own kernel, a lane per element; `fields` of Params are attributes by name."""
    del adapter

    def numbers(sizes: Sizes) -> Numbers:
        params = {field: call.number(name) for field, name in fields.items()}
        return {"n": prod(call.result.sizes(sizes)), **params}

    return lane_per_element(call, numbers, parts=parts)


def by_workgroup(
    call: Call,
    numbers: Callable[[Sizes], Numbers],
    launch: Callable[[int], Workgroups],
    workgroups: Iterable[int],
    *,
    name: str = "",
    parts: tuple[str, ...] = (),
    consts: tuple[tuple[str, int], ...] = (),
) -> Variants:
    """Return the kernel of `name`, by default the op's, for each workgroup size."""

    def make(lanes: int) -> Kernel:
        return make_kernel(
            call,
            name or call.op,
            numbers,
            lambda: launch(lanes),
            variant=str(lanes),
            parts=parts,
            consts=consts,
            constants={"WORKGROUP": lanes},
        )

    return [partial(make, lanes) for lanes in workgroups]


def one_workgroup(lanes: int) -> Workgroups:
    """The launch of a kernel with one workgroup."""
    del lanes
    return 1, 1, 1


def normalise_groups(call: Call, adapter: AdapterInfo, parts: tuple[str, ...] = ()) -> Variants:
    """Return the op's kernel with a workgroup per row, for each part in its reduce slot."""
    rows = prod(call.result.limits) // _run(call)

    def make(reduce: str, enables: str) -> Kernel:
        return make_kernel(
            call,
            call.op,
            partial(_row_numbers, call),
            lambda: folded(rows),
            variant=reduce.removeprefix("reduce_"),
            parts=(*parts, reduce),
            enables=enables,
        )

    return [partial(make, *reduce) for reduce in reduces(adapter)]


def normalise_rows(call: Call, adapter: AdapterInfo, parts: tuple[str, ...] = ()) -> Variants:
    """Return the same and the kernel with a lane per row, which is the default on CPU adapters."""
    rows = prod(call.result.limits) // _run(call)

    numbers, name = partial(_row_numbers, call), f"{call.op}_lane"
    lanes = by_workgroup(call, numbers, partial(flat, rows), (16, 4, 64), name=name, parts=parts)
    groups = normalise_groups(call, adapter, parts)
    return [*lanes, *groups] if adapter.software else [*groups, *lanes]


def _row_numbers(call: Call, sizes: Sizes) -> Numbers:
    columns = _run(call)
    rows = prod(call.result.sizes(sizes)) // columns
    settings = {name: call.number(name) for name, _ in call.attributes}  # eps, plus
    return {"rows": rows, "cols": columns, **settings}


def _run(call: Call) -> int:
    """Return how many numbers are normalized together: the weight's length, else the last axis."""
    weight = call.operands[1] if len(call.operands) > 1 else None
    return call.result.limits[-1] if weight is None else weight.limits[-1]
