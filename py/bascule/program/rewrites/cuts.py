"""Cut weights by rows into parts, so that all programs of a model agree on them.

A part is a parameter with its own buffer. It starts at a multiple of four rows (in a gated layer's
weight, of each half), so that its bytes start at a whole word in every format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from bascule.base.dtypes import nbytes_of
from bascule.errors import LimitError
from bascule.program.ops import OPS, cost_of, matrix_of, operands_of
from bascule.program.program import Call, Parameter, Program, Value
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, StrategyName, rebuilt


@dataclass(frozen=True, slots=True)
class Cut:
    """The number of parts of a weight (in a gated layer, of each half), and the reason."""

    parts: int
    reason: str


# By the names of weights; those not listed stay whole.
Cuts = Mapping[str, Cut]
# Turns a call over a whole weight (and bias, if it has one) into calls over their parts.
Split = Callable[[Call, Sequence[Parameter], Sequence[Parameter]], list[Call]]

_STEP = 4


def cuts_of(program: Program, limits: Limits) -> dict[str, Cut]:
    """Return the parts of every weight that must be cut; LimitError if that cannot help."""
    cuts: list[Cuts] = []
    known = {parameter.name for parameter in program.parameters}
    for call in program.calls:
        weight = matrix_of(call)
        if weight is None:
            continue
        parts = _parts_needed(call, weight, limits)
        if parts and not {v.name for v in (weight, _bias_of(call)) if v} <= known:
            hint = "Only parameters can be cut into parts."
            raise LimitError(weight.name, _size(weight.nbytes), _allowed(limits), hint=hint)
        # If a rewrite has cut it already, another reader uses the existing parts.
        n_parts = sum(name.startswith(f"{weight.name}[") for name in known) // OPS[call.op].stacked
        if parts:
            cuts.append({weight.name: Cut(parts, _reason(call, weight, limits))})
        if n_parts:
            cuts.append({weight.name: Cut(n_parts, f"{weight.name} is in parts already")})
    return merged(cuts)


def merged(cuts: Iterable[Cuts]) -> dict[str, Cut]:
    """Return the finest of each weight's cuts, the first among equals."""
    results: dict[str, Cut] = {}
    for some in cuts:
        for name, cut in some.items():
            if name not in results or cut.parts > results[name].parts:
                results[name] = cut
    return results


def with_parts(
    program: Program,
    limits: Limits,
    cuts: Cuts | None,
    strategy: StrategyName,
    splits: Mapping[str, Split],
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """Split the calls of these ops whose weights must be cut; None: as this program alone needs.

    Parameters that are no longer read are removed; parts take the place of the whole.
    """
    cuts = cuts_of(program, limits) if cuts is None else cuts
    parameters = {parameter.name: parameter for parameter in program.parameters}
    calls: list[Call] = []
    parts: dict[str, list[Parameter]] = {}
    applied: dict[AppliedRewrite, None] = {}
    for call in program.calls:
        weight = matrix_of(call)
        if weight is None or call.op not in splits or weight.name not in cuts:
            calls.append(call)
            continue
        bias, count = _bias_of(call), cuts[weight.name].parts
        pieces = parts[weight.name] = parts_of(parameters[weight.name], count, OPS[call.op].stacked)
        biases = parts_of(parameters[bias.name], count) if bias else []
        if bias:
            parts[bias.name] = biases
        calls += splits[call.op](call, pieces, biases)
        applied[AppliedRewrite(strategy, cuts[weight.name].reason, len(pieces))] = None
    if not applied:
        return program, ()
    read = {o.name for call in calls for o in call.operands if o is not None}
    every = {p.name: p for whole in program.parameters for p in (whole, *parts.get(whole.name, ()))}
    remaining = [
        parameter for name, parameter in every.items() if name in read or name not in parts
    ]
    return rebuilt(program, calls, parameters=remaining), tuple(applied)


def parts_of(parameter: Parameter, parts: int, halves: int = 1) -> list[Parameter]:
    """Return nearly equal parts of each half, one after the other."""
    rows = parameter.shape[0] // halves
    steps = ceil(rows / _STEP)
    ends = [min(rows, steps * part // parts * _STEP) for part in range(parts + 1)]
    spans = [(half * rows + a, b - a) for half in range(halves) for a, b in pairwise(ends)]
    whole = parameter.whole or (0 if parameter.rows else parameter.shape[0])
    return [
        replace(
            parameter,
            name=f"{parameter.name}[{first}:{first + count}]",
            shape=(count, *parameter.shape[1:]),
            first=parameter.first + first,
            rows=count,
            whole=whole,
        )
        for first, count in spans
    ]


def value_of(parameter: Parameter) -> Value:
    """Return the value of a parameter in a call."""
    return Value(parameter.name, parameter.shape, parameter.dtype)


def _parts_needed(call: Call, weight: Value, limits: Limits) -> int:
    """Return the parts of each half; 0 if nothing has to be cut."""
    if call.result.nbytes > limits.binding_nbytes:
        hint = "Run fewer or shorter texts at once, or use a tier without such a limit."
        raise LimitError(call.result.name, _size(call.result.nbytes), _allowed(limits), hint=hint)
    work = cost_of(call).multiply_adds
    allowed = min(limits.binding_nbytes, limits.part_nbytes)
    if weight.nbytes <= allowed and work <= limits.dispatch_work:
        return 0
    rows, inner = weight.limits[0] // OPS[call.op].stacked, weight.limits[1]
    step = min(rows, _STEP)
    step_nbytes = nbytes_of(weight.dtype, step * inner)
    allowed = min(limits.binding_nbytes, max(limits.part_nbytes, step_nbytes))
    step_work = work * step // weight.limits[0]
    if step_nbytes > limits.binding_nbytes:
        raise LimitError(f"{step} rows of {weight.name}", _size(step_nbytes), _allowed(limits))
    if step_work > limits.dispatch_work:
        hint = "Run fewer or shorter texts at once."
        needs, allowed = f"{step_work:,} multiply-adds", f"a dispatch may {limits.dispatch_work:,}"
        raise LimitError(f"{step} rows of {weight.name}", needs, allowed, hint=hint)
    max_steps = min(allowed / step_nbytes, limits.dispatch_work / max(1, step_work))
    return ceil(ceil(rows / _STEP) / int(max_steps))


def _bias_of(call: Call) -> Value | None:
    """Return the operand that has a number for each row of the weight."""
    return next((value for each, value in operands_of(call) if each.by_row), None)


def _reason(call: Call, weight: Value, limits: Limits) -> str:
    if weight.nbytes > limits.binding_nbytes:
        return f"{weight.name} has {_size(weight.nbytes)}, and {_allowed(limits)}"
    if weight.nbytes > limits.part_nbytes:
        allowed = f"a part of streamed weights has at most {limits.part_nbytes:,}"
        return f"{weight.name} has {_size(weight.nbytes)}, and {allowed}"
    work = f"{weight.name} takes {cost_of(call).multiply_adds:,} multiply-adds at once"
    return f"{work}, and a dispatch may {limits.dispatch_work:,}"


def _size(nbytes: int) -> str:
    return f"{nbytes:,} bytes"


def _allowed(limits: Limits) -> str:
    return f"a binding holds at most {limits.binding_nbytes:,}"
